"""The experiment ``times``: how well does Whisper say when somebody speaks?

Whisper can write times between its words, in steps of 20 ms. Here a checkpoint writes them for
people's recordings that are aligned word by word. The first time is compared with the beginning of
the first word, the last time with the end of the last word. Times of further cases are also
compared with those of the first case, which shows by how much a recipe or a runtime moves them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from compat.contract.item import Item
from compat.contract.session import Handle, Session
from compat.experiments.experiment import Experiment
from compat.experiments.measures import Measured, count, opened, recordings
from compat.inputs.people import ALIGNED
from compat.judge.experiments import Finding
from compat.metrics.timing import median_interval
from compat.models.whisper import WhisperModel

CASES = tuple(
    f"whisper-tiny.en@pretrained/{target}/{recipe}"
    for target in ("cpu-torch", "cpu-onnxruntime", "openvino-cpu")
    for recipe in ("fp32", "int8-dynamic")
)
TICK = 0.02
"""Seconds from one time token to the next."""
LATEST = 50
"""The latest first time, in ticks: 50 are one second, the limit in every library."""
REFUSED = -np.inf


def ruled(logits: np.ndarray, written: Sequence[int], begin: int, end: int) -> np.ndarray:
    """Return logits (vocabulary,) in which tokens that may not follow are minus infinity.

    Times come in pairs and never go back. A time must follow if all times together are more
    probable than any single text token. Source: ``ApplyTimestampRules`` of openai-whisper.

    Args:
        logits: logits of the next token.
        written: tokens after the prompt.
        begin: the token of 0.00 s; the tokens of later times have the ids after it.
        end: the token that ends a transcript; lower ids are text.
    """
    logits = logits.astype(np.float64)
    logits[begin - 1] = REFUSED  # This token would ask for a transcript without times.
    times = [token for token in written if token >= begin]
    is_time = bool(written) and written[-1] >= begin
    is_pair = is_time and (len(written) < 2 or written[-2] >= begin)
    if is_pair:
        logits[begin:] = REFUSED
    elif is_time:
        logits[:end] = REFUSED
    if times:
        # No time goes back. The next time must be later than the last one, so that segments have a
        # length; but right after a segment's end, the next segment may begin at the same time.
        logits[begin : times[-1] + (0 if is_time and not is_pair else 1)] = REFUSED
    if not written:
        logits[:begin] = REFUSED
        logits[begin + LATEST + 1 :] = REFUSED
    later = logits[begin:].max()
    if np.isfinite(later):
        together = later + np.log(np.exp(logits[begin:] - later).sum())
        if together > logits[:begin].max():
            logits[:begin] = REFUSED
    return logits


def written(model: WhisperModel, session: Session, item: Item) -> list[int]:
    """Return the tokens of a recording of at most one window, including times."""
    vocabulary = model.vocabulary
    *prompt, no_times = vocabulary.prompt
    begin = no_times + 1
    encoded = session.run("encoder", {"mel": model.padded_mel([item.audio], 1)}, "b1")
    session.reset("decoder", "b1")
    tokens: list[int] = []
    for position in range(len(prompt) + model.max_tokens - 1):
        token = (prompt + tokens)[position]
        feeds: dict[str, np.ndarray | Handle] = {
            **encoded,
            "token": np.array([token], np.int32),
            "position": np.array([position], np.int32),
        }
        logits = session.run("decoder", feeds, "b1")["logits"].numpy()[0].copy()
        if position < len(prompt) - 1:
            continue
        logits[list(vocabulary.suppress)] = REFUSED
        tokens.append(int(ruled(logits, tokens, begin, vocabulary.end).argmax()))
        if tokens[-1] == vocabulary.end:
            break
    return tokens


def seconds(tokens: Sequence[int], begin: int) -> list[float]:
    """Return the times among tokens, in seconds."""
    return [(token - begin) * TICK for token in tokens if token >= begin]


def findings(
    case: str, items: Sequence[Item], found: Sequence[list[float]], first: Sequence[list[float]]
) -> list[Finding]:
    """Return the measures of one case's times, compared with the words and with the first case."""
    name = case.partition("/")[2]
    spoken = [(item.facts["segments"][0][0], item.facts["segments"][-1][1]) for item in items]
    told = []
    for measure, side in (("begins", 0), ("ends", -1)):
        truths = [span[side] for span in spoken]
        off = [abs(times[side] - truth) for times, truth in zip(found, truths, strict=True)]
        centre = median_interval(off)
        told.append(
            Finding(
                measure=f"error of when speech {measure}, {name}",
                value=centre.value,
                unit="seconds",
                interval=(centre.low, centre.high),
                detail=f"median of {len(off)} recordings, at most {max(off):.2f} s",
            )
        )
    moved = sum(times != others for times, others in zip(found, first, strict=True))
    told.append(count(f"recordings whose times differ, {name}", moved, f"of {len(items)}"))
    return told


def times(cases: Sequence[str], said: Callable[[str], None]) -> Measured:
    """Run the experiment."""
    items = recordings(ALIGNED, 16_000)
    all_times: dict[str, list[list[float]]] = {}
    told: list[Finding] = []
    for case in cases:
        said(case)
        model, session = opened(case)
        begin = model.vocabulary.prompt[-1] + 1
        all_times[case] = [seconds(written(model, session, item), begin) for item in items]
        session.close()
        told += findings(case, items, all_times[case], all_times[cases[0]])
    return Measured(tuple(told))


def _run(arguments: argparse.Namespace, said: Callable[[str], None]) -> Measured:
    return times(arguments.cases, said)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", nargs="+", default=CASES, help="of Whisper, on runtimes here")


EXPERIMENT = Experiment(
    "how well does Whisper say when somebody speaks?",
    _run,
    _arguments,
    "compat experiment times --save",
)
