"""All of a backbone on a folder as Stable Diffusion 1.5's: nothing of ours in it, one view, no camera."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from diffusion.backbone import Backbone, load
from diffusion.errors import BackboneError
from diffusion.guidance import cfg
from diffusion.samplers import sample_views
from tests.diffusion.models import CAPTIONS, orbit
from tests.diffusion.small_sd15 import MAX_TOKENS, save_small_sd15


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_sd15(tmp_path_factory.mktemp("sd15") / "model", sample_size=12)


@pytest.fixture(scope="module")
def sd15(folder: Path) -> Backbone:
    return load(folder)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sizes_come_from_the_folder(folder: Path, sd15: Backbone, tmp_path: Path) -> None:
    assert "galatea" not in json.loads((folder / "model_index.json").read_text())
    assert (sd15.num_views, sd15.has_camera, sd15.image_size) == (1, False, 96)
    assert (sd15.latent_channels, sd15.downscale, sd15.max_tokens) == (4, 8, MAX_TOKENS)
    assert sd15.schedule.prediction_type == "epsilon"
    assert not sd15.schedule.zero_terminal_snr
    assert load(save_small_sd15(tmp_path / "large", sample_size=64)).image_size == 512


@torch.no_grad()
def test_words_pictures_and_predictions(sd15: Backbone) -> None:
    text = sd15.encode_prompt(CAPTIONS)
    assert text.embeds.shape == (3, MAX_TOKENS, 48)
    images = noise(2, 3, 3, 96, 96).sigmoid()
    latents = sd15.encode(images)
    assert latents.shape == (2, 3, 4, 12, 12)
    assert sd15.decode(latents).shape == images.shape
    early, late = (sd15.predict(latents, t, text[:1]) for t in (900, 10))
    assert early.shape == latents.shape
    other = sd15.predict(latents, 900, text[1:2])
    for changed in (late, other):  # blocks wide enough to see both the timestep and the words
        assert float((changed - early).std()) > 1e-3 * float(early.std())
    with pytest.raises(ValueError, match="has no camera embedding"):
        sd15.predict(latents, 900, text[:1], camera=orbit(2, 3))
    with pytest.raises(BackboneError, match="has no image_encoder"):
        sd15.embed_image(images[0])


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_views_are_sampled_each_by_its_own_words(sd15: Backbone, sampler: str) -> None:
    def run(prompts: list[str], scale: float = 7.5) -> torch.Tensor:
        return sample_views(
            sd15, prompts, None, generator=torch.Generator().manual_seed(0), num_steps=2, guidance_scale=scale,
            sampler=sampler,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip

    views = run(CAPTIONS[:2])
    assert views.shape == (2, 1, 3, 96, 96)
    torch.testing.assert_close(run([CAPTIONS[0], CAPTIONS[2]])[0], views[0], atol=1e-5, rtol=0)
    assert not torch.allclose(run([CAPTIONS[0], CAPTIONS[2]])[1], views[1], atol=1e-4)


@torch.no_grad()
def test_one_step_is_its_formula(sd15: Backbone) -> None:
    """From pure noise to the clean latents that the guided prediction of noise points at."""
    steps = []
    views = sample_views(
        sd15, [CAPTIONS[0]], None, generator=torch.Generator().manual_seed(0), num_steps=1, guidance_scale=3.0,
        guidance_rescale=0.0, callback=steps.append,
    )  # fmt: skip
    (step,) = steps
    assert step.timestep == 999
    start, text = noise(1, 1, 4, 12, 12), sd15.encode_prompt(["", CAPTIONS[0]])
    guided = cfg(sd15.predict(start, 999, text[:1]), sd15.predict(start, 999, text[1:]), 3.0)
    x0 = sd15.schedule.to_x0(guided, start, 999)
    clean = sd15.schedule.add_noise(x0, guided, 0)  # SD 1.5's config ends at its least noise, not at none
    torch.testing.assert_close(step.latents, clean, atol=2e-3, rtol=1e-4)
    torch.testing.assert_close(views, sd15.decode(step.latents), atol=1e-5, rtol=0)
