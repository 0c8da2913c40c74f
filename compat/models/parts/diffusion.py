"""Diffusion samplers as data: the times and the factors of every step.

A sampler's next latent is a linear function of its inputs. A step therefore needs only a few
factors, which are known before the first step. They are inputs of the step's graph, as the noise
is: every runtime does the same arithmetic, and the loop over steps is one call of
``Session.steps``.
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
"""Outputs of a step: the next latent, the guided prediction, and the denoised latent, which a
sampler of second order gives to its next step."""
JUDGED = 10
"""Largest number of a schedule's steps at which predictions are judged."""
LATENTS = "latents"
"""Name of a prediction's array with the latent after each step, (steps, *latent)."""


@dataclass(frozen=True)
class Schedule:
    """The steps of a sampler.

    A sampler of first order has two factors per step: the next latent is the sum of latent and
    prediction times these. A sampler of second order has six. In the next latent they multiply
    latent, prediction, the previous step's denoised latent and fresh noise; in the denoised latent
    they multiply latent and prediction.
    """

    times: np.ndarray
    """The network's time input at each step, (steps, 1)."""
    factors: NDArray[np.float32]
    """Factors of each step: (steps, 2) of first order, (steps, 6) of second order."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.times)

    @property
    def second_order(self) -> bool:
        """Whether steps take the denoised latent of the step before, and noise."""
        return len(self.factors[0]) > 2


def ddim(settings: Mapping[str, Any], steps: int) -> Schedule:
    """Return the deterministic sampler of a ``DDIMScheduler``, whose network predicts noise.

    Args:
        settings: those of diffusers' class: ``num_train_timesteps``, ``beta_start``, ``beta_end``,
            ``steps_offset`` and ``set_alpha_to_one``, with scaled linear betas and leading times.
        steps: number of steps.

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

    Latents are kept at a standard deviation of one, as the network takes them, so that half
    precision can hold them; the scheduler's own have deviations of up to 500. The last latent is
    equal to the scheduler's.

    Args:
        settings: those of diffusers' class: ``sigma_min``, ``sigma_max`` and ``sigma_data``, with
            exponential sigmas, prediction of velocity, order 2, midpoint and a last sigma of zero.
        steps: number of steps, at least two.

    Source: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
    Models", 2022, SDE-DPM-Solver++(2M); Evans et al., "Stable Audio Open", 2024.
    """
    data = float(settings["sigma_data"])
    ends = np.log(settings["sigma_max"]), np.log(settings["sigma_min"])
    sigmas = np.append(np.exp(np.linspace(*ends, steps)), 0.0)
    sizes = np.sqrt(sigmas**2 + data**2)
    now, then, size = sigmas[:-1], sigmas[1:], sizes[:-1]
    ratio = then / now
    # The denoised latent is own times the scaled latent plus predicted times the prediction.
    own, predicted = data**2 / size, -now * data / size
    fresh = 1 - ratio**2
    second = np.zeros(steps)
    # The first step has no denoised latent before it, and the last one ends without any noise:
    # neither has a term of second order.
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
    """Return the inputs of a step's graph, in order, except the network's conditions."""
    latent = Tensor(shape)
    known = {
        "latent": latent,
        "time": Tensor((1,), schedule.times.dtype.name),
        "factors": Tensor(schedule.factors.shape[1:]),
    }
    return {**known, "before": latent, "noise": latent} if schedule.second_order else known


def outputs(schedule: Schedule) -> tuple[str, ...]:
    """Return the names of the outputs of a step's graph."""
    return (LATENT, PREDICTION, DENOISED) if schedule.second_order else (LATENT, PREDICTION)


def step_module(
    network: torch.nn.Module, predict: Callable[..., torch.Tensor], guidance: float
) -> torch.nn.Module:
    """Return the module of one sampler step, with classifier-free guidance.

    Args:
        network: the network that predicts; it becomes a submodule of the result.
        predict: called with the network, two latents (2, …), a time (1,) and the conditions, whose
            first row is with the prompt and whose second is without; returns predictions of the
            latents' shape.
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
    """Run all steps of a schedule from noise to the last latent; every next latent is fetched.

    Args:
        session: the session that has the step's compiled graph.
        graph: name of the graph.
        point: name of the graph's point.
        schedule: the sampler.
        noises: the first latent, (1, *latent). A sampler of second order also takes the noise that
            it adds at each step: (1 + steps, *latent).
        conditions: the network's conditions, the same at every step.
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
    """Return the guided predictions at given latents, (steps, *latent).

    ``latents`` has one latent for each step of the schedule. At most :data:`JUDGED` steps are run,
    spread evenly from the first to the last. The latents come from the reference: an error in one
    step would move a target's own next latent, and later steps would then measure that drift
    instead of the target's arithmetic.
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
