"""A volume whose colours are a model's latents: shown as they are, and turned into colours by an affine map."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.backbone import load as load_backbone
from gen3d.cameras import orbit
from gen3d.distillation.sds import SDS
from gen3d.latent_colors import affine_rgb
from gen3d.priors.config import TextPriorConfig
from gen3d.recipe import check_backbone, check_recipe
from gen3d.representations.base import load_field
from gen3d.representations.config import VolumeConfig
from gen3d.representations.volume import Volume
from gen3d.stages.base import Chosen, StageConfig
from gen3d.stages.config import (
    ConvertConfig,
    DistillConfig,
    FitConfig,
    PictureConfig,
    ReconstructConfig,
    ShadingConfig,
)
from gen3d.stages.picture import TakePictures
from gen3d.state import State
from gen3d.surface import SurfaceConfig
from gen3d.views import Views
from tests.gen3d.test_distill import Knowing, distil, given

LATENT = VolumeConfig(resolutions=(12,), num_samples=16, colors="latent", latent_channels=5)
# Colours to latents of five channels, half the pictures' size, and back.
TO_LATENT = torch.randn(3, 5, generator=torch.Generator().manual_seed(4))
SHIFT = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])
WANTED = torch.tensor([0.9, 0.2, 0.4])


class Coder(Knowing):
    """Knows that everything is WANTED, in latents that are an affine map of the colours."""

    def __init__(self) -> None:
        super().__init__(num_views=2, color=WANTED @ TO_LATENT + SHIFT)
        self.encoded = 0

    def encode(self, images: Tensor) -> Tensor:
        self.encoded += 1
        return (F.avg_pool2d(images, 2).movedim(1, -1) @ TO_LATENT + SHIFT).movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        colors = ((latents.movedim(1, -1) - SHIFT) @ torch.linalg.pinv(TO_LATENT)).movedim(-1, 1)
        return F.interpolate(colors, scale_factor=2.0)


def test_the_map_is_the_decoder_s() -> None:
    latents = torch.rand(7, 3, generator=torch.Generator().manual_seed(1)) @ TO_LATENT + SHIFT
    expected = (latents - SHIFT) @ torch.linalg.pinv(TO_LATENT)
    found = affine_rgb(Coder(), "cpu")
    torch.testing.assert_close(latents @ found[:-1] + found[-1], expected, atol=1e-4, rtol=0)


def test_latents_are_shown_as_they_are_and_become_what_the_prior_knows() -> None:
    prior = Coder()
    config = DistillConfig(num_steps=40, num_views=2, render_size=(8,), opaque=0.0, learning_rate=0.3)
    state = distil(config, given(prior, LATENT))
    # One for the size, and those of the start; none in a step.
    assert prior.encoded <= 4
    background = torch.tensor(prior.background) @ TO_LATENT + SHIFT
    torch.testing.assert_close(state["distill/background"], background, atol=1e-4, rtol=0)
    volume = load_field(LATENT, state)
    assert isinstance(volume, Volume)
    middle = [
        one.render(orbit(30.0, 10.0), 8, background[None]).images[0, :, 3:5, 3:5].mean(dim=(1, 2))
        for one in (LATENT.begin(), volume)
    ]
    begun, made = ((each - prior.color).norm() for each in middle)
    assert float(made) < 0.6 * float(begun)
    # Latents lie beyond [0, 1], where colours do not.
    assert float(middle[1].max()) > 1.5


def ball() -> Volume:
    volume = VolumeConfig(
        resolutions=(20,), density_scale=300.0, blob_strength=2.0, colors="latent", latent_channels=5
    ).begin()
    volume.grid[..., 1:] = WANTED @ TO_LATENT + SHIFT
    volume.learn_colors(Coder())
    return volume


def test_meshes_and_pictures_have_colours() -> None:
    volume, state = ball(), State()
    mesh = volume.to_mesh(SurfaceConfig(resolution=24), None)
    assert mesh.vertex_colors is not None
    torch.testing.assert_close(mesh.vertex_colors, WANTED.expand_as(mesh.vertex_colors), atol=1e-3, rtol=0)
    volume.level(0).save(state)
    about = given(Coder(), volume.settings)
    picture = TakePictures(PictureConfig(num_views=2, size=16), about)
    picture.apply(state, torch.Generator())
    images = Views.load(state).images
    assert images.shape[1] == 3
    torch.testing.assert_close(images[0, :, 8, 8], WANTED, atol=0.01, rtol=0)
    torch.testing.assert_close(images[0, :, 0, 0], torch.full((3,), 0.5))
    # A finer grid, and one made of it in colours, look the same.
    finer = volume.upsample(24)
    assert finer.rgb_map is volume.rgb_map
    colors = VolumeConfig(resolutions=(20,)).begin_as(volume)
    torch.testing.assert_close(
        colors.density_and_color(torch.zeros(1, 3))[1], WANTED[None], atol=1e-3, rtol=0
    )


def test_without_a_prior_there_are_no_colours() -> None:
    with pytest.raises(ValueError, match="no colours before it is distilled"):
        LATENT.begin().to_rgb(torch.zeros(1, 5))


def test_another_number_of_channels_is_refused_with_the_right_one() -> None:
    volume = VolumeConfig(resolutions=(8,), colors="latent")
    with pytest.raises(
        ValueError, match=r"latents of 4 channels, but the prior's have 5; .* latent_channels: 5"
    ):
        distil(DistillConfig(num_steps=1, num_views=2, render_size=(8,)), given(Coder(), volume))
    known = replace(load_backbone("tiny").facts, latent_channels=5)
    chosen = Chosen(prior=TextPriorConfig(), representation=volume, distillation=SDS())
    with pytest.raises(ValueError, match=r"^recipe.mine: the representation has latents of 4 channels"):
        check_backbone({"mine": DistillConfig()}, chosen, known)
    check_backbone({"mine": DistillConfig()}, chosen, replace(known, latent_channels=4))
    with pytest.raises(ValueError, match="latent_channels is 5, which has no effect while colors are rgb"):
        VolumeConfig(latent_channels=5)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (ReconstructConfig(), "reconstruct has colours to give"),
        (FitConfig(), "fit has colours to give"),
        (ConvertConfig(representation=LATENT), "convert has colours to give"),
        (DistillConfig(background="random"), "background random is of colours"),
        (DistillConfig(shading=ShadingConfig(probability=0.5)), "shading is of colours"),
    ],
)
def test_what_has_only_colours_to_give_is_refused(stage: StageConfig, words: str) -> None:
    chosen = given(Coder(), LATENT).chosen
    if not isinstance(stage, DistillConfig):
        chosen = replace(chosen, distillation=None)
    with pytest.raises(ValueError, match=rf"recipe.mine: .*{words}"):
        check_recipe({"mine": stage}, chosen)
    assert SDS().looks_at_images is False
