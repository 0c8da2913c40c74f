"""Diffusion samplers as data: times and factors of every step, which a graph multiplies by.

A sampler of latents is linear in what it is given, so that a step needs no more than a few numbers,
which are known before the first one. They are inputs of the step's graph, as noise is: every
runtime does the same arithmetic, and the loop over steps is one call of ``Session.steps``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compat.contract.graph import Tensor
from compat.contract.session import Handle, Session, Steps
from compat.models.parts.attention import guided

if TYPE_CHECKING:
    import torch

LATENT, PREDICTION, DENOISED = "next_latent", "prediction", "denoised"
"""Outputs of a step: the next latent, the guided prediction, and what the latent is without noise,
which a sampler of second order gives to its next step."""
JUDGED = 10
"""Steps of a schedule at which predictions are judged, at most."""
LATENTS = "latents"
"""Array of a prediction: what follows each step, (steps, *latent)."""


@dataclass(frozen=True)
class Schedule:
    """The steps of a sampler.

    ``factors`` of a sampler of first order are those of latent and prediction in the next latent;
    one of second order adds those of the denoised latent of the step before and of fresh noise, and
    then those of latent and prediction in the denoised latent.
    """

    times: np.ndarray
    """What the network is told of each step, (steps, 1)."""
    factors: NDArray[np.float32]
    """(steps, 2), or (steps, 6)."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.times)

    @property
    def second_order(self) -> bool:
        """Whether steps take the denoised latent of the one before, and noise."""
        return len(self.factors[0]) > 2


def ddim(settings: Mapping[str, Any], steps: int) -> Schedule:
    """Return the deterministic sampler of a ``DDIMScheduler``, whose network predicts noise.

    Args:
        settings: those of diffusers' class: ``num_train_timesteps``, ``beta_start``, ``beta_end``,
            ``steps_offset`` and ``set_alpha_to_one``, with scaled linear betas and leading times.
        steps: how many.

    Source: Song, Meng and Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, equation 12.
    """
    trained = int(settings["num_train_timesteps"])
    ends = settings["beta_start"] ** 0.5, settings["beta_end"] ** 0.5
    kept = np.cumprod(1.0 - np.linspace(*ends, trained) ** 2)
    stride = trained // steps
    times = np.arange(steps)[::-1] * stride + int(settings.get("steps_offset", 0))
    last = 1.0 if settings.get("set_alpha_to_one", True) else kept[0]
    now = kept[times]
    then = np.where(times >= stride, kept[times - stride], last)
    latent = np.sqrt(then / now)
    prediction = np.sqrt(1 - then) - latent * np.sqrt(1 - now)
    factors = np.stack((latent, prediction), axis=1)
    return Schedule(times.astype(np.int32)[:, None], factors.astype(np.float32))


def cosine_dpm(settings: Mapping[str, Any], steps: int) -> Schedule:
    """Return the stochastic sampler of a ``CosineDPMSolverMultistepScheduler``.

    Latents are kept at a deviation of one, as the network takes them, where the scheduler's grow to
    500: half precisions hold them. The last is the scheduler's own.

    Args:
        settings: those of diffusers' class: ``sigma_min``, ``sigma_max`` and ``sigma_data``, with
            exponential sigmas, prediction of velocity, order 2, midpoint and a last sigma of zero.
        steps: how many, two at least.

    Source: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
    Models", 2022, SDE-DPM-Solver++(2M); Evans et al., "Stable Audio Open", 2024.
    """
    data = float(settings["sigma_data"])
    ends = np.log(settings["sigma_max"]), np.log(settings["sigma_min"])
    sigmas = np.append(np.exp(np.linspace(*ends, steps)), 0.0)
    sizes = np.sqrt(sigmas**2 + data**2)
    now, then, size = sigmas[:-1], sigmas[1:], sizes[:-1]
    ratio = then / now
    # Of the scheduler's latent: what is denoised of it, and how the next one is put together.
    own, predicted = data**2 / size, -now * data / size
    fresh = 1 - ratio**2
    second = np.zeros(steps)
    # The first step has none before it, and the last one goes all the way.
    gone = np.log(now[:-1] / now[1:])
    second[1:-1] = 0.5 * fresh[1:-1] * gone[1:] / gone[:-1]
    factors = np.stack(
        (
            (ratio**2 * size + (fresh + second) * own) / sizes[1:],
            (fresh + second) * predicted / sizes[1:],
            -second / sizes[1:],
            then * np.sqrt(fresh) / sizes[1:],
            own,
            predicted,
        ),
        axis=1,
    )
    times = np.arctan(now) / np.pi * 2
    return Schedule(times.astype(np.float32)[:, None], factors.astype(np.float32))


# The graph of a step -----------------------------------------------------------------------------


def inputs(shape: tuple[int | str, ...], schedule: Schedule) -> dict[str, Tensor]:
    """Return the inputs of a step's graph, in order, but for what the network is conditioned by."""
    latent = Tensor(shape)
    known = {
        "latent": latent,
        "time": Tensor((1,), schedule.times.dtype.name),
        "factors": Tensor(schedule.factors.shape[1:]),
    }
    return {**known, "before": latent, "noise": latent} if schedule.second_order else known


def outputs(schedule: Schedule) -> tuple[str, ...]:
    """Return the outputs of a step's graph."""
    return (LATENT, PREDICTION, DENOISED) if schedule.second_order else (LATENT, PREDICTION)


def step_module(
    network: torch.nn.Module, predict: Callable[..., torch.Tensor], guidance: float
) -> torch.nn.Module:
    """Return one step of a sampler, classifier-free guidance among it.

    Args:
        network: what predicts; a submodule of the result.
        predict: called with the network, two latents (2, …), a time (1,) and the conditions, whose
            rows are with the prompt and without; returns predictions of the latents' shape.
        guidance: how far the prediction goes from the one without the prompt to the one with it.
    """
    import torch

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(
            self,
            latent: torch.Tensor,
            time: torch.Tensor,
            factors: torch.Tensor,
            *others: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            second_order = factors.shape[0] > 2
            conditions = others[2:] if second_order else others
            both = predict(self.network, torch.cat((latent, latent)), time, *conditions)
            prediction = guided(both.unsqueeze(0), guidance)
            following = factors[0] * latent + factors[1] * prediction
            if not second_order:
                return following, prediction
            before, fresh = others[:2]
            following = following + factors[2] * before + factors[3] * fresh
            return following, prediction, factors[4] * latent + factors[5] * prediction

    return Step()


# The loop ----------------------------------------------------------------------------------------


def sample(
    session: Session,
    graph: str,
    point: str,
    schedule: Schedule,
    noises: np.ndarray,
    conditions: Mapping[str, np.ndarray | Handle],
) -> Steps:
    """Carry noise through the steps of a schedule; every next latent is fetched.

    Args:
        session: what the step's graph is compiled in.
        graph: its name.
        point: its point.
        schedule: the sampler.
        noises: the first latent, and what a sampler of second order adds at each step: (1, *latent)
            or (1 + steps, *latent).
        conditions: what the network is conditioned by, at every step.
    """
    first = noises[:1]
    feeds = {"latent": first, **conditions}
    along = {"time": schedule.times, "factors": schedule.factors}
    carry = {"latent": LATENT}
    if schedule.second_order:
        feeds["before"] = np.zeros_like(first)
        along["noise"] = noises[1:, None]
        carry["before"] = DENOISED
    return session.steps(
        graph, feeds, point, schedule.steps, along=along, carry=carry, fetch=(LATENT,)
    )


def predictions(
    session: Session,
    graph: str,
    point: str,
    schedule: Schedule,
    latents: np.ndarray,
    conditions: Mapping[str, np.ndarray | Handle],
) -> np.ndarray:
    """Return the guided prediction at given latents, (steps, *latent).

    ``latents`` has one for each step of the schedule; of many steps :data:`JUDGED` are taken,
    spread evenly, the first and the last among them. Latents of the reference are given: the error
    of one step moves a target's own next latent, so that later steps would say little of its
    arithmetic.
    """
    count = min(schedule.steps, JUDGED)
    taken = np.linspace(0, schedule.steps - 1, count).round().astype(int)
    feeds = dict(conditions)
    along = {
        "latent": latents[taken, None],
        "time": schedule.times[taken],
        "factors": schedule.factors[taken],
    }
    if schedule.second_order:
        feeds |= {name: np.zeros_like(latents[:1]) for name in ("before", "noise")}
    steps = session.steps(graph, feeds, point, count, along=along, fetch=(PREDICTION,))
    return steps.outputs[PREDICTION][:, 0]
