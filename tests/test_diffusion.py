"""Schedules of samplers beside diffusers' own, and the loop that follows one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compat.build.torch_session import TorchSession
from compat.contract.graph import Graph, Tensor
from compat.contract.session import Session, Steps
from compat.models.parts import diffusion
from compat.models.parts.diffusion import Schedule, cosine_dpm, ddim
from compat.models.parts.noise import normal

diffusers = pytest.importorskip("diffusers")

SHAPE = (1, 3, 4)
DDIM = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
COSINE = {"sigma_min": 0.3, "sigma_max": 500, "sigma_data": 1.0}


def predicted(latent: np.ndarray, step: int) -> np.ndarray:
    """What a network might say: it depends on the latent, and not only on it."""
    return np.float32(np.tanh(latent) + 0.3 * normal(step, SHAPE, "network"))


def carried(schedule: Schedule, noises: np.ndarray) -> list[np.ndarray]:
    """Return the latents of a schedule, by the factors alone."""
    latents = [noises[:1]]
    before = np.zeros_like(latents[0])
    for step, factors in enumerate(schedule.factors):
        prediction = predicted(latents[-1], step)
        following = factors[0] * latents[-1] + factors[1] * prediction
        if schedule.second_order:
            following += factors[2] * before + factors[3] * noises[step + 1 : step + 2]
            before = factors[4] * latents[-1] + factors[5] * prediction
        latents.append(following)
    return latents


@pytest.mark.parametrize("steps", [1, 7, 10, 50])
@pytest.mark.parametrize("changed", [{}, {"set_alpha_to_one": True, "steps_offset": 0}])
def test_ddim_is_the_librarys(steps: int, changed: dict[str, Any]) -> None:
    settings = {**DDIM, **changed}
    library = diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, **settings)
    library.set_timesteps(steps)
    schedule = ddim(settings, steps)
    assert schedule.times[:, 0].tolist() == library.timesteps.tolist()
    assert not schedule.second_order and schedule.times.dtype == np.int32
    found = carried(schedule, normal(0, SHAPE))
    latent = torch.from_numpy(found[0])
    for step, time in enumerate(library.timesteps):
        prediction = torch.from_numpy(predicted(latent.numpy(), step))
        latent = library.step(prediction, time, latent).prev_sample
        np.testing.assert_allclose(found[step + 1], latent, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 3, 8, 20, 100])
def test_cosine_dpm_is_the_librarys(steps: int) -> None:
    """Its latents, as the network takes them; the last as it is."""
    pytest.importorskip("torchsde")
    library = diffusers.CosineDPMSolverMultistepScheduler(**COSINE)
    library.set_timesteps(steps)
    schedule = cosine_dpm(COSINE, steps)
    np.testing.assert_allclose(schedule.times[:, 0], library.timesteps, atol=1e-6)
    noises = normal(0, (1 + steps, *SHAPE[1:]))
    drawn = iter(noises[1:, None])
    library.noise_sampler = lambda *_: torch.from_numpy(next(drawn))
    found = carried(schedule, noises)
    latent = torch.from_numpy(found[0]) * library.init_noise_sigma
    for step, time in enumerate(library.timesteps):
        entered = library.scale_model_input(latent, time)
        np.testing.assert_allclose(found[step], entered, atol=1e-5)
        prediction = torch.from_numpy(predicted(entered.numpy(), step))
        latent = library.step(prediction, time, latent).prev_sample
    np.testing.assert_allclose(found[-1], latent, atol=1e-5)
    # Nothing grows, which half precisions could not hold.
    assert max(float(np.abs(one).max()) for one in found) < 10


# --- the loop ------------------------------------------------------------------------------------


class Network(torch.nn.Module):
    """Predicts from the latent, the time and a condition of two rows."""

    def forward(
        self, latents: torch.Tensor, time: torch.Tensor, condition: torch.Tensor
    ) -> torch.Tensor:
        return torch.tanh(latents + condition[:, :, None]) * (1 + time)


GUIDANCE = 3.0
CONDITION = np.stack((np.array([0.5, -1.0, 2.0]), np.zeros(3))).astype(np.float32)


def session_of(schedule: Schedule) -> Session:
    module = diffusion.step_module(Network(), lambda network, *inputs: network(*inputs), GUIDANCE)
    graph = Graph(
        "step",
        {**diffusion.inputs(SHAPE, schedule), "condition": Tensor(CONDITION.shape)},
        diffusion.outputs(schedule),
        {"only": {}},
        lambda: module,
    )
    return TorchSession({"step": graph}, {"step": module}, {"step": "fp32"}, torch.device("cpu"))


def guided(latent: np.ndarray, time: np.ndarray) -> np.ndarray:
    prompted, free = (np.tanh(latent + row[:, None]) * (1 + time) for row in CONDITION)
    answer: np.ndarray = free + GUIDANCE * (prompted - free)
    return answer


SCHEDULES = pytest.mark.parametrize(
    "schedule", [ddim(DDIM, 5), cosine_dpm(COSINE, 5)], ids=["ddim", "cosine"]
)


@SCHEDULES
def test_one_call_carries_noise_through_all_steps(schedule: Schedule) -> None:
    noises = normal(1, (6 if schedule.second_order else 1, *SHAPE[1:]))
    found = sampled(schedule, noises)
    latent, before = noises[:1].astype(np.float64), np.zeros(SHAPE)
    for step in range(5):
        prediction = guided(latent, schedule.times[step])
        factors = schedule.factors[step].astype(np.float64)
        following = factors[0] * latent + factors[1] * prediction
        if schedule.second_order:
            following += factors[2] * before + factors[3] * noises[step + 1]
            before = factors[4] * latent + factors[5] * prediction
        latent = following
        np.testing.assert_allclose(found.outputs[diffusion.LATENT][step], latent, rtol=1e-3)
    assert found.count == 5
    last = found.last[diffusion.LATENT].numpy()
    np.testing.assert_array_equal(last, found.outputs[diffusion.LATENT][-1])


def sampled(schedule: Schedule, noises: np.ndarray) -> Steps:
    session = session_of(schedule)
    return diffusion.sample(session, "step", "only", schedule, noises, {"condition": CONDITION})


@SCHEDULES
def test_predictions_are_those_at_given_latents(schedule: Schedule) -> None:
    """Whatever the steps before would have made of them."""
    latents = normal(2, (5, *SHAPE[1:]))
    session = session_of(schedule)
    found = diffusion.predictions(
        session, "step", "only", schedule, latents, {"condition": CONDITION}
    )
    for latent, time, prediction in zip(latents, schedule.times, found, strict=True):
        np.testing.assert_allclose(prediction[None], guided(latent[None], time), rtol=1e-4)


@pytest.mark.parametrize("column", [2, 3])
def test_memory_and_noise_of_the_second_order_count(column: int) -> None:
    """A planted defect: a sampler that forgets either ends elsewhere."""
    schedule = cosine_dpm(COSINE, 5)
    noises = normal(3, (6, *SHAPE[1:]))
    factors = schedule.factors.copy()
    factors[:, column] = 0
    whole, lacking = sampled(schedule, noises), sampled(Schedule(schedule.times, factors), noises)
    differences = [
        np.abs(one.numpy() - other.numpy()).max()
        for one, other in zip(whole.last.values(), lacking.last.values(), strict=True)
    ]
    assert min(differences) > 1e-3
