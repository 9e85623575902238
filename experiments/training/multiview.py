"""Recipe of the text-to-multiview UNet: v-prediction on cached latents, four views of a thing at one noise level.

The text transformer learns with the UNet, as in latent diffusion (arXiv 2112.10752, section 3.3): one that learned
from contrast alone keeps what tells the captions of a batch apart, which is colour, and little of which thing it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diffusion.adapters.camera import camera_condition
from diffusion.attention import AttentionContext
from diffusion.backbone import Backbone
from diffusion.files import save_tensors
from diffusion.finite import check_finite
from diffusion.schedule import Schedule
from experiments.training.channels import pixel_weights
from experiments.training.config import NoiseConfig, Weighting
from experiments.training.models import build_scheduler, build_unet
from experiments.world.dataset import Shards
from video.pixels import from_uint8


class MultiviewRecipe:
    """The VAE comes from ``backbone`` and stays as it is, and so does the projection of its text tower.

    weighting: of the latent channels in the loss: "pixels" weighs each by what an error in it costs in the picture,
        "equal" all alike.
    noise: the schedule, what is predicted, and how timesteps are weighed.
    train_text: let the text transformer learn too; otherwise it stays as ``backbone`` has it.
    drop_text: share of objects whose caption is left out, for classifier-free guidance.
    cache: folder where latents are kept, so that a continued run need not encode the pictures again.
    """

    def __init__(
        self,
        backbone: Backbone,
        train: Shards,
        held_out: Shards,
        *,
        channels: tuple[int, ...] = (64, 128, 128),
        weighting: Weighting = "pixels",
        noise: NoiseConfig | None = None,
        train_text: bool = True,
        drop_text: float = 0.1,
        cache: Path | None = None,
    ) -> None:
        self.unet = build_unet(channels, backbone.latent_channels)
        self.text = backbone.text_encoder
        self.text.requires_grad_(train_text)
        self.text.text_projection.requires_grad_(False)
        self.modules = nn.ModuleDict({"unet": self.unet, "text": self.text}).to(backbone.device)
        costs = pixel_weights(backbone, from_uint8(train.images[:8].flatten(0, 1)))
        self.costs = costs[:, None, None].to(backbone.device)
        self.weights = self.costs if weighting == "pixels" else torch.ones_like(self.costs)
        noise = noise or NoiseConfig()
        self.scheduler = build_scheduler(noise.prediction_type, noise.zero_terminal_snr)
        self.schedule = Schedule.from_scheduler(self.scheduler).to(backbone.device)
        self.min_snr_gamma = noise.min_snr_gamma
        self.drop_text = drop_text
        self.empty = _tokens(backbone, [""])
        self.train = _Inputs.of(backbone, train, cache)
        self.held_out = _Inputs.of(backbone, held_out, cache)

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(self.train.latents), (batch_size,), generator=generator)
        t = self.schedule.sample_timesteps(batch_size, generator=generator)
        dropped = torch.rand(batch_size, generator=generator) < self.drop_text
        tokens = torch.where(dropped[:, None], self.empty, self.train.tokens[rows])
        noise = torch.randn(self.train.latents[rows].shape, generator=generator)
        output, target, _ = self._predict(self.train, rows, t, tokens, noise)
        error = (output - target).square() * self.weights
        if self.min_snr_gamma is not None:
            error = error * self.schedule.min_snr_weight(t, self.min_snr_gamma).to(error.device).view(
                -1, 1, 1, 1, 1
            )
        return error.mean(), {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """On held-out scenes, the same noise and eight timesteps each time: the mean squared error of what is
        predicted; the same weighted as the loss weighs channels; and how well the latents are denoised in one step,
        which compares whatever is predicted and weighed: variance over squared error, both of channels weighed by their
        cost in the picture, in dB, mean over the timesteps."""
        generator = torch.Generator().manual_seed(0)
        errors, missed, levels = [], [], []
        for rows in torch.arange(len(self.held_out.latents)).split(16):
            t = torch.arange(len(rows)) % 8 * 125 + 62
            noise = torch.randn(self.held_out.latents[rows].shape, generator=generator)
            output, target, x_t = self._predict(self.held_out, rows, t, self.held_out.tokens[rows], noise)
            errors.append((output - target).square())
            x0 = self.held_out.latents[rows].to(x_t.device).float()
            denoised = self.schedule.to_x0(output, x_t, t.to(x_t.device))
            missed.append(((denoised - x0).square() * self.costs).mean((1, 2, 3, 4)))
            levels.append(t)
        error, squared, level = torch.cat(errors), torch.cat(missed), torch.cat(levels).to(errors[0].device)
        x0 = self.held_out.latents.to(error.device).float()
        variance = ((x0 - x0.mean((0, 1, 3, 4), keepdim=True)).square() * self.costs).mean()
        ratios = torch.stack([variance / squared[level == t].mean() for t in level.unique()])
        return {
            "error": float(error.mean()),
            "weighted": float((error * self.weights).mean()),
            "denoised_db": float((10 * ratios.log10()).mean()),
        }

    def _predict(
        self, inputs: _Inputs, rows: Tensor, t: Tensor, tokens: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the UNet predicts, what it should, and the noisy latents it saw, each ``[B, V, C, h, w]``."""
        device = self.unet.device
        x0, camera = inputs.latents[rows].to(device).float(), inputs.camera[rows].to(device)
        noise, t = noise.to(device), t.to(device)
        views = x0.shape[1]
        target, x_t = self.schedule.target(x0, noise, t), self.schedule.add_noise(x0, noise, t)
        output = self.unet(
            x_t.flatten(0, 1),
            t.repeat_interleave(views),
            self.text(input_ids=tokens.to(device)).last_hidden_state,
            class_labels=camera.flatten(0, 1),
            cross_attention_kwargs={"context": AttentionContext(num_views=views)},
        ).sample
        return output.float().view_as(target), target, x_t


class _Inputs:
    """What the UNet sees: latents ``[N, V, C, h, w]``, camera numbers ``[N, V, 16]``, words ``[N, L]``."""

    def __init__(self, latents: Tensor, camera: Tensor, tokens: Tensor) -> None:
        self.latents, self.camera, self.tokens = latents, camera, tokens

    @staticmethod
    def of(backbone: Backbone, shards: Shards, cache: Path | None) -> _Inputs:
        latents = cached_latents(backbone, shards.images, cache)
        return _Inputs(latents, camera_condition(shards.c2w), _tokens(backbone, shards.captions))


def _tokens(backbone: Backbone, captions: list[str]) -> Tensor:
    """Captions as the text tower reads them, ``[N, L]`` long."""
    return backbone.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def cached_latents(backbone: Backbone, images: Tensor, cache: Path | None) -> Tensor:
    """Latents ``[N, V, C, h, w]`` in half precision of pictures ``[N, V, 3, H, W]`` uint8, read from ``cache`` if this
    VAE encoded them before."""

    def encode() -> Tensor:
        with torch.autocast(backbone.device.type, torch.bfloat16):
            parts = [
                backbone.encode(from_uint8(some.to(backbone.device))).half().cpu() for some in images.split(8)
            ]
        return check_finite(
            torch.cat(parts), "an encoding in half precision", "the VAE's latents are too large for it"
        )

    of = [str(backbone.vae.config["scaling_factor"]), *backbone.vae.state_dict().values(), images]
    return kept_latents(cache, "latents", of, encode)


def kept_latents(
    cache: Path | None, name: str, of: Sequence[str | Tensor], make: Callable[[], Tensor]
) -> Tensor:
    """What ``make`` makes, read from the folder ``cache`` if it was made of the same, ``of``, before."""
    if cache is None:
        return make()
    digest = hashlib.sha256()
    for each in of:
        digest.update(each.encode() if isinstance(each, str) else each.cpu().contiguous().numpy().data)
    path = cache / f"{name}_{digest.hexdigest()[:16]}.safetensors"
    if path.is_file():
        return load_file(path)["latents"]
    latents = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, {"latents": latents})
    return latents
