"""Schedules: identities, round trips between parameterisations, and behaviour at the ends."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.training_utils import compute_snr
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.schedule import Schedule
from tests.diffusion.models import make_scheduler

TYPES = ["epsilon", "v_prediction", "sample", "flow"]
seeds = st.integers(0, 2**31)


def schedule(prediction_type: str = "v_prediction", zero_terminal: bool = True) -> Schedule:
    source = make_scheduler("epsilon", zero_terminal)
    return Schedule.from_alphas_cumprod(source.alphas_cumprod, prediction_type)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(seed=seeds, t=st.integers(1, 998), source=st.sampled_from(TYPES), to=st.sampled_from(TYPES))
def test_any_parameterisation_converts_to_any_other_and_back(seed: int, t: int, source: str, to: str) -> None:
    s = schedule(source)
    x0, noise = draw(seed, 2, 3), draw(seed + 1, 2, 3)
    latents, prediction = s.add_noise(x0, noise, t), s.target(x0, noise, t)
    other = s.convert(prediction, latents, t, source, to)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(other, schedule(to).target(x0, noise, t), rtol=0, atol=1e-8)
    back = s.convert(other, latents, t, to, source)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(back, prediction, rtol=0, atol=1e-7)
    torch.testing.assert_close(s.to_x0(prediction, latents, t), x0, rtol=0, atol=1e-7)
    torch.testing.assert_close(s.to_eps(prediction, latents, t), noise, rtol=0, atol=1e-7)
    torch.testing.assert_close(s.from_x0(x0, latents, t), prediction, rtol=0, atol=1e-6)
    torch.testing.assert_close(s.from_eps(noise, latents, t), prediction, rtol=0, atol=1e-6)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=seeds, t=st.integers(0, 1000), to=st.sampled_from(["sample", "epsilon", "v_prediction"]))
def test_a_rectified_flow_is_finite_from_end_to_end(seed: int, t: int, to: str) -> None:
    s = Schedule.flow(1000)
    x0, noise = draw(seed, 4), draw(seed + 1, 4)
    latents = s.add_noise(x0, noise, t)
    assert float(s.sigma(t)) == pytest.approx(t / 1000)
    torch.testing.assert_close(s.to_x0(noise - x0, latents, t), x0)
    torch.testing.assert_close(s.to_eps(noise - x0, latents, t), noise)
    assert s.convert(noise - x0, latents, t, "flow", to).isfinite().all()  # pyright: ignore


def test_variance_is_preserved_and_snr_falls() -> None:
    s = schedule()
    t = torch.arange(s.num_timesteps)
    torch.testing.assert_close(s.alpha(t) ** 2 + s.sigma(t) ** 2, torch.ones(1000))
    assert (s.snr(t).diff() < 0).all()
    assert s.zero_terminal_snr
    assert float(s.snr(999)) == 0.0
    assert not schedule(zero_terminal=False).zero_terminal_snr


def test_v_at_pure_noise_gives_x0_and_epsilon_refuses() -> None:
    x0, noise = draw(0, 2, 4), draw(1, 2, 4)
    s = schedule("v_prediction")
    latents = s.add_noise(x0, noise, 999)
    assert torch.equal(latents, noise)
    assert torch.equal(s.to_x0(s.target(x0, noise, 999), latents, 999), x0)
    refusing = schedule("epsilon")
    with pytest.raises(ValueError, match=r"x_0 from a noise prediction where alpha\(t\) = 0"):
        refusing.to_x0(noise, latents, torch.tensor([10, 999]))
    assert refusing.to_x0(noise, latents, torch.tensor([10, 998])).isfinite().all()


def test_x0_prediction_refuses_noise_where_there_is_none() -> None:
    s = Schedule.from_alphas_cumprod(torch.tensor([1.0, 0.5, 0.1]), "sample")
    with pytest.raises(ValueError, match=r"noise from an x_0 prediction where sigma\(t\) = 0"):
        s.to_eps(torch.ones(1, 2), torch.ones(1, 2), 0)
    assert float(s.snr(0)) == float("inf")
    assert float(s.min_snr_weight(0)) == 5.0


def test_agrees_with_diffusers() -> None:
    scheduler = make_scheduler()
    s = Schedule.from_scheduler(scheduler)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    t = torch.tensor([3, 500, 999])
    torch.testing.assert_close(s.add_noise(x0, noise, t), scheduler.add_noise(x0, noise, t))
    torch.testing.assert_close(s.target(x0, noise, t), scheduler.get_velocity(x0, noise, t))
    torch.testing.assert_close(s.snr(t), compute_snr(scheduler, t), rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_min_snr_weights_amount_to_clipped_snr_on_x0(prediction_type: str) -> None:
    s = schedule(prediction_type)
    t = torch.tensor([1, 200, 500, 900])
    x0, noise, wrong = draw(0, 4, 5), draw(1, 4, 5), draw(2, 4, 5)
    latents = s.add_noise(x0, noise, t)
    prediction = s.from_x0(wrong, latents, t)
    got = s.min_snr_weight(t) * (prediction - s.target(x0, noise, t)).square().sum(1)
    expected = s.snr(t).clamp(max=5.0) * (wrong - x0).square().sum(1)
    torch.testing.assert_close(got, expected.to(got), rtol=1e-4, atol=0)
    assert s.min_snr_weight(torch.arange(1000)).isfinite().all()


def test_timesteps_broadcast_over_views_and_keep_dtype() -> None:
    s = schedule()
    x0, noise = (
        torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.ones(2, 2, 4, 4, 4),
    )
    t = torch.tensor([[1, 2], [3, 4]])
    together = s.add_noise(x0, noise, t)
    assert torch.equal(together[1, 0], s.add_noise(x0[1, 0], noise[1, 0], 3))
    assert s.add_noise(x0.bfloat16(), noise.bfloat16(), t).dtype == torch.bfloat16
    assert s.to_x0(x0.half(), noise.half(), 5).dtype == torch.float16
    with pytest.raises(ValueError, match="does not lead"):
        s.add_noise(x0, noise, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="whole timesteps"):
        s.alpha(torch.tensor([0.5]))


def test_sampled_timesteps_are_seeded_and_in_range() -> None:
    s = schedule()
    t = s.sample_timesteps(500, generator=torch.Generator().manual_seed(3), low=20, high=40)
    assert t.dtype == torch.long
    assert (t.min(), t.max()) == (20, 39)
    assert torch.equal(
        t, s.sample_timesteps(500, generator=torch.Generator().manual_seed(3), low=20, high=40)
    )
    with pytest.raises(ValueError, match="0 <= low < high <= 1000, got 40 and 1001"):
        s.sample_timesteps(1, generator=torch.Generator(), low=40, high=1001)


def test_conversions_are_differentiable() -> None:
    s = schedule("v_prediction")
    prediction, latents = draw(0, 2, 3).requires_grad_(), draw(1, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, x: s.to_x0(p, x, torch.tensor([10, 999])), (prediction, latents)
    )


@pytest.mark.parametrize(
    ("cumprod", "message"),
    [
        (torch.tensor([0.5, 0.9]), "fall strictly"),
        (torch.tensor([1.5, 0.9]), r"lie in \[0, 1\]"),
        (torch.tensor([float("nan"), 0.9]), r"lie in \[0, 1\]"),
        (torch.ones(2, 2), r"shape \[T\]"),
    ],
)
def test_bad_tables_are_refused(cumprod: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule.from_alphas_cumprod(cumprod)


def test_bad_prediction_type_is_refused() -> None:
    with pytest.raises(ValueError, match="'velocity', allowed: epsilon, v_prediction, sample, flow"):
        Schedule.from_alphas_cumprod(DDIMScheduler().alphas_cumprod, "velocity")
    with pytest.raises(ValueError, match="has no alphas_cumprod"):
        Schedule.from_scheduler(object())
