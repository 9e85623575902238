"""The joint: folding there and back, inputs that nobody reads, and all that samples on a denoiser of twenty lines."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion.backbone import Backbone
from diffusion.conditioning import Conditioning, Inputs
from diffusion.denoisers.base import Denoiser, Folding, check_inputs
from diffusion.errors import BackboneError
from diffusion.samplers import guided_denoise, make_scheduler, sample, sample_views
from diffusion.schedule import Schedule
from tests.diffusion.models import make_scheduler as noise_levels
from tests.diffusion.models import orbit

SCHEDULE = Schedule.from_scheduler(noise_levels())
LEADS = st.one_of(st.tuples(st.integers(1, 4)), st.tuples(st.integers(1, 4), st.integers(1, 5)))


class Known:
    """Knows the answer: grey latents, as grey as the first number of the first token says."""

    in_channels = 4
    takes = frozenset({"camera"})

    def __init__(self) -> None:
        self.objects: list[int] = []

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor | int, inputs: Inputs) -> torch.Tensor:
        check_inputs(self, inputs)
        self.objects.append(len(latents))
        grey = inputs.conditioning.embeds[:, 0, 0].view(-1, *[1] * (latents.ndim - 1))
        return SCHEDULE.from_x0(grey.expand_as(latents), latents, timestep)


def words(*greys: float) -> Conditioning:
    return Conditioning(embeds=torch.tensor(greys).view(-1, 1, 1))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- folding


@given(LEADS, st.integers(1, 3))
def test_unfolding_is_the_inverse_of_folding(lead: tuple[int, ...], channels: int) -> None:
    latents = noise(*lead, channels, 2, 3)
    folding = Folding.of(latents, channels)
    rows = folding.fold("latents", latents)
    assert rows.shape == (folding.rows, channels, 2, 3)
    assert torch.equal(folding.unfold(rows), latents)
    if len(lead) == 2:
        assert torch.equal(rows[folding.num_views - 1], latents[0, -1])
        for_all_views = folding.fold("features", latents[:, :1])
        assert torch.equal(folding.unfold(for_all_views), latents[:, :1].expand_as(latents))


@given(LEADS)
def test_timesteps_of_objects_and_of_views_are_those_of_their_rows(lead: tuple[int, ...]) -> None:
    folding, device = Folding(lead), torch.device("cpu")
    of_objects = torch.arange(lead[0])
    expected = folding.fold("t", of_objects.view(-1, *[1] * (len(lead) - 1)))
    assert torch.equal(folding.timesteps(of_objects, device), expected)
    of_views = torch.arange(folding.rows).view(lead)
    assert torch.equal(folding.timesteps(of_views, device), of_views.flatten())
    assert folding.timesteps(7, device).shape == folding.timesteps(torch.tensor(7), device).shape == ()


@given(LEADS, st.integers(1, 25))
def test_words_serve_all_or_each_object_or_each_view(lead: tuple[int, ...], rows: int) -> None:
    folding = Folding(lead)
    if rows in (1, lead[0], folding.rows):
        folding.check_conditioning(words(*[0.0] * rows))
        return
    with pytest.raises(ValueError, match=f"conditioning must have 1, .* rows, got {rows}"):
        folding.check_conditioning(words(*[0.0] * rows))


def test_shapes_that_do_not_fold_are_refused() -> None:
    folding = Folding((2, 3))
    for value in (torch.zeros(2), torch.zeros(3, 3), torch.zeros(2, 2, 4)):
        with pytest.raises(ValueError, match=r"features must be \[2, 3 or 1, \.\.\.\] for these latents"):
            folding.fold("features", value)
    with pytest.raises(ValueError, match=r"features must be \[2, \.\.\.\] for these latents, got \[3, 1\]"):
        Folding((2,)).fold("features", torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"latents must have 4 channels, got \[2, 3, 8, 8\]"):
        Folding.of(torch.zeros(2, 3, 8, 8), 4)
    with pytest.raises(ValueError, match=r"latents must be \[B, V, C, h, w\] or \[B, C, h, w\], got \[4\]"):
        Folding.of(torch.zeros(4), 4)
    with pytest.raises(ValueError, match=r"timestep must be \[\] or \[2\] or \[2, 3\], got \[3\]"):
        folding.timesteps(torch.arange(3), torch.device("cpu"))


# ---- another denoiser


def test_sampling_needs_nothing_but_a_denoiser() -> None:
    known: Denoiser = Known()
    given = Inputs(conditioning=words(0.5, -0.25), camera=orbit(2, 3))
    without = Inputs(conditioning=words(0.2, 0.2), camera=orbit(2, 3))
    scheduler = make_scheduler(noise_levels())
    latents = noise(2, 3, 4, 8, 8)
    for at_once, batches in ((None, [4]), (1, [2, 2])):
        denoiser = Known()
        denoise = guided_denoise(denoiser, given, without, guidance_scale=3.0, at_once=at_once)
        out = sample(denoise, latents, scheduler, num_steps=4)
        expected = torch.tensor([0.2 + 3 * 0.3, 0.2 - 3 * 0.45]).view(2, 1, 1, 1, 1).expand_as(out)
        torch.testing.assert_close(out, expected, atol=1e-3, rtol=0)
        assert denoiser.objects == batches * 4
    plain = sample(guided_denoise(known, given, None, guidance_scale=3.0), latents, scheduler, num_steps=4)
    torch.testing.assert_close(plain.mean((1, 2, 3, 4)), torch.tensor([0.5, -0.25]), atol=1e-3, rtol=0)


def test_a_backbone_takes_any_denoiser(backbone: Backbone) -> None:
    other = copy.copy(backbone)
    other.denoiser = Known()
    assert other.has_camera
    latents, prompt = noise(1, 4, 4, 8, 8), other.encode_prompt(["a red mushroom"])
    expected = Known()(latents, 500, Inputs(conditioning=prompt, camera=orbit(1, 4)))
    assert torch.equal(other.predict(latents, 500, prompt, camera=orbit(1, 4)), expected)
    views = sample_views(
        other, ["a"], orbit(1, 4), generator=torch.Generator().manual_seed(0), num_steps=2, guidance_scale=2.0
    )
    assert views.shape == (1, 4, 3, 64, 64)
    with pytest.raises(BackboneError, match="is a Known, and this needs a UNet"):
        _ = other.unet
    with pytest.raises(BackboneError, match="takes latents of 4 channels, these have 3"):
        other.predict(latents[:, :, :3], 500, prompt)


def test_what_it_does_not_take_is_refused() -> None:
    latents, text = noise(1, 2, 4, 8, 8), words(0.0)
    with pytest.raises(
        ValueError,
        match=r"this denoiser cannot read features; besides conditioning it takes camera$",
    ):
        Known()(latents, 5, Inputs(conditioning=text, features=noise(1, 2, 4, 8, 8)))
    deaf = Known()
    deaf.takes = frozenset()
    with pytest.raises(ValueError, match=r"cannot read camera and record; .* it takes nothing$"):
        deaf(latents, 5, Inputs(conditioning=text, camera=orbit(1, 2), record={}))
