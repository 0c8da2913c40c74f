"""The experiment ``ensemble``: does a weighted mean of two networks err less than the better?"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from compat.experiments import segmenting
from compat.experiments.experiment import Experiment, no_arguments
from compat.experiments.measures import Measured
from compat.judge.experiments import Finding

PRUNED = 0.3
WEIGHT = 0.5


def ensemble(said: Callable[[str], None]) -> Measured:
    """Run the experiment on segmentation, its pruned copy, and the mean of their probabilities."""
    model, network = segmenting.trained()
    members = [segmenting.by_network(one) for one in (network, segmenting.pruned(PRUNED))]

    def mean(windows: np.ndarray) -> np.ndarray:
        one, two = (np.exp(scores(windows)) for scores in members)
        return np.asarray(WEIGHT * one + (1 - WEIGHT) * two)

    items = segmenting.conversations()
    answers = []
    for number, scores in enumerate((*members, mean)):
        said(f"network {number + 1} of 3")
        answers.append(segmenting.predictions(scores, items))
    errors = [model.task.scores(items, one, answers[0])["der"] for one in answers]
    better = int(np.argmin(errors[:2]))
    found = model.task.scores(items, answers[2], answers[better])
    detail = (
        f"{len(items)} conversations, paired; DER {errors[0]:.2%} and {errors[1]:.2%} alone, "
        f"{errors[2]:.2%} together"
    )
    return Measured(
        (
            Finding(
                measure="degradation of DER against the better member",
                value=found["degradation"],
                unit="points",
                interval=tuple(found["degradation_interval"]),
                detail=detail,
            ),
        )
    )


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return ensemble(said)


EXPERIMENT = Experiment(
    "does an ensemble by weighted mean err less than its better member?",
    _run,
    no_arguments,
    "compat experiment ensemble --save",
)
