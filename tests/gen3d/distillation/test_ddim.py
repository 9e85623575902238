"""Steps between noise levels."""

from __future__ import annotations

import pytest
import torch

from diffusion.schedule import Schedule
from gen3d.distillation.ddim import along, ddim, strides
from gen3d.distillation.sds import SDS
from tests.gen3d.known_priors import SHAPE, Truths, scores_at
from tests.gen3d.small_prior import numbers


def schedules() -> list[Schedule]:
    alphas = torch.linspace(1.0, 0.0, 1001, dtype=torch.float64)[:-1] ** 2
    types = ("epsilon", "v_prediction", "sample", "flow")
    return [Schedule.from_alphas_cumprod(0.999 * alphas, each) for each in types] + [Schedule.flow()]


@pytest.mark.parametrize("schedule", schedules(), ids=lambda each: each.prediction_type)
def test_there_and_back_along_a_known_picture(schedule: Schedule) -> None:
    prior = Truths(cond=numbers(*SHAPE, seed=1))
    prior.schedule = schedule
    loss, noise = SDS(guidance_scale=1.0), numbers(*SHAPE, seed=3)
    scores = scores_at(prior, loss, prior.predictions["cond"], noise, 20)
    up = along(scores, strides(20, torch.tensor([905]), 100), lambda here: here.prediction("cond"))
    assert up.timestep.tolist() == [905]
    exact = schedule.add_noise(prior.predictions["cond"], noise, up.timestep)
    torch.testing.assert_close(up.noisy, exact, rtol=1e-9, atol=1e-9)
    down = along(up, strides(905, torch.tensor([20]), 70), lambda here: here.prediction("cond"))
    torch.testing.assert_close(down.noisy, scores.noisy, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "flow"])
def test_a_step_to_and_from_pure_noise_is_exact(prediction_type: str) -> None:
    cumprod = torch.linspace(0.999, 0.0, 1000, dtype=torch.float64)
    schedule = (
        Schedule.flow()
        if prediction_type == "flow"
        else Schedule.from_alphas_cumprod(cumprod, prediction_type)
    )
    assert schedule.zero_terminal_snr
    last, t = torch.tensor([schedule.num_timesteps - 1]), torch.tensor([400])
    x0, noise = numbers(*SHAPE, seed=1), numbers(*SHAPE, seed=2)
    here = ddim(schedule, schedule.target(x0, noise, last), noise, last, t)
    torch.testing.assert_close(here, schedule.add_noise(x0, noise, t), rtol=1e-12, atol=1e-12)
    there = ddim(schedule, schedule.target(x0, noise, t), here, t, last)
    torch.testing.assert_close(there, noise, rtol=1e-9, atol=1e-12)


def test_a_step_is_eulers_in_variance_exploding_coordinates() -> None:
    schedule = schedules()[0]
    t, s = torch.tensor([700]), torch.tensor([300])
    noisy, eps = numbers(*SHAPE, seed=1), numbers(*SHAPE, seed=2)
    levels = {int(each): schedule.sigma(each, noisy) / schedule.alpha(each, noisy) for each in (t, s)}
    x = noisy / schedule.alpha(t, noisy) + (levels[300] - levels[700]) * eps
    torch.testing.assert_close(ddim(schedule, eps, noisy, t, s), x * schedule.alpha(s, noisy))


def test_strides_lead_each_object_to_its_own_end() -> None:
    def plan(start: int, stop: list[int], stride: int) -> list[list[int]]:
        return [each.tolist() for each in strides(start, torch.tensor(stop), stride)]

    assert plan(0, [250, 500], 200) == [[200, 200], [250, 400], [250, 500]]
    assert plan(999, [900, 750], 100) == [[900, 899], [900, 799], [900, 750]]
    assert plan(0, [400], 200) == [[200], [400]]
    assert plan(5, [5], 10) == []


def test_what_is_put_after_a_step_is_where_the_next_begins() -> None:
    prior = Truths(cond=numbers(*SHAPE, seed=1))
    scores = scores_at(prior, SDS(guidance_scale=1.0), numbers(*SHAPE, seed=2), numbers(*SHAPE, seed=3), 0)
    ways: list[tuple[int, int]] = []

    def blank(noisy: torch.Tensor, here: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        ways.append((int(here), int(there)))
        return torch.zeros_like(noisy)

    end = along(scores, strides(0, torch.tensor([300]), 100), lambda here: here.prediction("cond"), blank)
    assert ways == [(0, 100), (100, 200), (200, 300)]
    assert float(end.noisy.abs().max()) == 0.0
