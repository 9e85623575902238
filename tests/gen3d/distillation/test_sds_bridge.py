"""SDS as a bridge from source words to the prompt."""

from __future__ import annotations

import pytest
import torch

from gen3d.distillation.base import Loss
from gen3d.distillation.sds_bridge import SDSBridge
from tests.gen3d.known_priors import SHAPE, Truths, followed, gradient_at
from tests.gen3d.small_prior import Small, golden_of, gradient_of, numbers


@pytest.fixture(scope="module")
def prior() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("loss", "golden"),
    [
        (SDSBridge(guidance_scale=20.0), (0.285797235, 1.07985745, 1.9215051)),
        (SDSBridge(switch=0.25), (0.125365318, 0.189814425, 0.494078242)),  # the second phase
    ],
)
def test_gradients_are_as_they_were(loss: Loss, golden: tuple[float, float, float], prior: Small) -> None:
    assert golden_of(gradient_of(loss, prior)) == pytest.approx(golden, rel=1e-6)


def test_phases_by_hand() -> None:
    cond, source = numbers(*SHAPE, seed=2), numbers(*SHAPE, seed=3)
    prior = Truths(cond=cond, source=source)
    latents, noise = numbers(*SHAPE, seed=4), numbers(*SHAPE, seed=5)
    loss = SDSBridge(guidance_scale=3.0, bridge_scale=2.0, switch=0.5)
    t = torch.tensor([600])
    ratio = prior.schedule.alpha(t, latents) / prior.schedule.sigma(t, latents)
    before, after = (gradient_at(loss, prior, latents, noise, t, progress=p) for p in (0.49, 0.5))
    torch.testing.assert_close(before, ratio * (latents - source - 3.0 * (cond - source)))
    torch.testing.assert_close(after, ratio * 2.0 * (source - cond))


def test_the_first_phase_ends_beyond_the_prompt_as_seen_from_the_source() -> None:
    cond, source = 0.3 * numbers(*SHAPE, seed=2), 0.3 * numbers(*SHAPE, seed=3)
    prior = Truths("v_prediction", cond=cond, source=source)
    ended = followed(SDSBridge(guidance_scale=2.0), prior, steps=400)
    assert float((ended - source - 2.0 * (cond - source)).abs().max()) < 0.05


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"guidance_scale": -1.0}, "sds_bridge guidance_scale"),
        ({"bridge_scale": 0.0}, "sds_bridge bridge_scale"),
        ({"switch": 1.5}, "sds_bridge switch"),
        ({"switch": 1.0, "bridge_scale": 7.0}, "bridge_scale is 7.0, which has no effect"),
        ({"switch": 0.0, "guidance_scale": 7.0}, "guidance_scale is 7.0, which has no effect"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SDSBridge(**settings)  # type: ignore[arg-type]


def test_what_it_asks_for() -> None:
    assert SDSBridge().wants() == SDSBridge().heeds() == {"source"}
