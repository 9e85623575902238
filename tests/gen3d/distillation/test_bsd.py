"""BSD: the shortest mixture of what words ask for and what denoising does."""

from __future__ import annotations

import pytest
import torch

from gen3d.cameras import orbit
from gen3d.distillation.bsd import BSD, shortest_mixture
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


def test_the_mixture_is_the_shortest_of_all_for_each_item() -> None:
    first, second = numbers(5, 2, 3, seed=1), numbers(5, 2, 3, seed=2)
    first[0], second[1] = 10 * second[0], 10 * first[1]  # the shortest is at an end
    found = shortest_mixture(first, second).flatten(1).norm(dim=1)
    tried = torch.stack(
        [(a * first + (1 - a) * second).flatten(1).norm(dim=1) for a in torch.linspace(0, 1, 2001).tolist()]
    )
    assert bool((found <= tried.amin(0) + 1e-12).all())
    torch.testing.assert_close(found, tried.amin(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shortest_mixture(first, second)[0], second[0])
    torch.testing.assert_close(shortest_mixture(first, second)[1], first[1])
    torch.testing.assert_close(shortest_mixture(first, second), shortest_mixture(second, first))
    torch.testing.assert_close(shortest_mixture(first, first), first)
    assert float(shortest_mixture(first, -first).abs().max()) < 1e-9


def test_it_worsens_neither_task() -> None:
    """The descent of two tasks: of both gradients it is a descent direction, or nothing."""
    first, second = numbers(20, 6, seed=3), numbers(20, 6, seed=4)
    mixture = shortest_mixture(first, second)
    for each in (first, second):
        assert bool(((mixture * each).sum(1) >= -1e-9).all())


@pytest.mark.parametrize("denoiser", ["noise", "residual"])
def test_it_is_the_equation_worked_by_hand(denoiser: str, prior: Small) -> None:
    latents, noise = numbers(2, 1, 4, 8, 8, seed=7), numbers(2, 1, 4, 8, 8, seed=8)
    t = torch.tensor([200, 700])
    noisy = prior.schedule.add_noise(latents, noise, t)
    cond, uncond = prior.predict(noisy, t, orbit([0.0, 90.0], 0.0), ["cond", "uncond"])
    g = 15.0 * (cond - uncond)
    d = uncond if denoiser == "noise" else 1.25 * (uncond - noise)
    found = gradient_of(BSD(classifier_scale=15.0, denoiser=denoiser), prior)  # type: ignore[arg-type]
    for item in range(2):
        share = float(((d - g) * d)[item].sum() / (d - g)[item].square().sum())
        share = min(max(share, 0.0), 1.0)
        expected = prior.schedule.alpha(t, latents)[item] * (share * g[item] + (1 - share) * d[item])
        torch.testing.assert_close(found[item], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("loss", "golden"),
    [
        (BSD(classifier_scale=15.0), (0.0121992971, 0.0538278877, 0.0391808142)),
        (BSD(classifier_scale=15.0, denoiser="residual"), (-0.000800225198, 0.0610085782, 0.0286334603)),
    ],
)
def test_gradients_are_as_they_were(loss: BSD, golden: tuple[float, float, float], prior: Small) -> None:
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"classifier_scale": -1.0}, "bsd classifier_scale"),
        ({"denoiser": "residual", "denoiser_scale": 1e9}, "bsd denoiser_scale"),
        ({"denoiser_scale": 2.0}, "bsd denoiser_scale is 2.0, which has no effect while denoiser is noise"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        BSD(**settings)  # type: ignore[arg-type]
