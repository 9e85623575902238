"""Recipe of the text-to-multiview UNet: v-prediction on cached latents, four views of a thing at one noise level.

Some views may be of depth or of normals, and some may be clean: those are given, and tell the others what to show.

The text transformer learns with the UNet, as in latent diffusion (arXiv 2112.10752, section 3.3): one that learned
from contrast alone keeps what tells the captions of a batch apart, which is colour, and little of which thing it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from diffusion.attention import AttentionContext
from diffusion.backbone import Backbone
from diffusion.domains import DOMAINS
from diffusion.schedule import Schedule
from experiments.training.channels import pixel_weights
from experiments.training.config import NoiseConfig, SetsConfig, Weighting
from experiments.training.models import build_scheduler, build_unet
from experiments.training.sets import Pool, Sets, draw_sets
from experiments.world.dataset import Shards
from video.pixels import from_uint8


class MultiviewRecipe:
    """The VAE comes from ``backbone`` and stays as it is, and so does the projection of its text tower.

    weighting: of the latent channels in the loss: "pixels" weighs each by what an error in it costs in the picture,
        "equal" all alike.
    noise: the schedule, what is predicted, and how timesteps are weighed.
    sets: which pictures of a scene are seen together, and which of them are given.
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
        sets: SetsConfig | None = None,
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
        self.drop_text, self.sets = drop_text, sets or SetsConfig()
        self.empty = _tokens(backbone, [""])
        self.train, self.held_out = (Pool.of(backbone, each, self.sets, cache) for each in (train, held_out))
        self.train_tokens, self.held_out_tokens = (
            _tokens(backbone, each.captions) for each in (train, held_out)
        )

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return self.loss_of(*self.draw(batch_size, generator)), {}

    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What a step learns from, for `loss_of`: latents, camera, timesteps, tokens, noise and which are given."""
        sets = draw_sets(self.sets, self.train, batch_size, generator)
        count = len(sets.picks)
        rows = torch.randint(len(self.train), (count,), generator=generator)
        t = self.schedule.sample_timesteps(count, generator=generator)
        drop = torch.where(sets.given.any(dim=1), self.sets.given_drop_text, self.drop_text)
        dropped = torch.rand(count, generator=generator) < drop
        tokens = torch.where(dropped[:, None], self.empty, self.train_tokens[rows])
        latents, camera = self.train.pick(rows, sets.picks)
        noise = torch.randn(latents.shape, generator=generator)
        return latents, camera, t, tokens, noise, sets.given

    def loss_of(
        self, latents: Tensor, camera: Tensor, t: Tensor, tokens: Tensor, noise: Tensor, given: Tensor
    ) -> Tensor:
        """The mean error of what is not given."""
        output, target, _ = self._predict(latents, camera, t, tokens, noise, given)
        error = (output - target).square() * self.weights
        if self.min_snr_gamma is not None:
            weight = self.schedule.min_snr_weight(t, self.min_snr_gamma).to(error.device)
            error = error * weight.view(-1, 1, 1, 1, 1)
        learned = ~given.to(error.device)
        return (error.mean((2, 3, 4)) * learned).sum() / learned.sum()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """On held-out scenes, the same noise and eight timesteps each time: the mean squared error of what is
        predicted; the same weighted as the loss weighs channels; and how well the latents are denoised in one step,
        which compares whatever is predicted and weighed: variance over squared error, both of channels weighed by their
        cost in the picture, in dB, mean over the timesteps.

        All that for the colours; of what else is learned, how well it is denoised: "depth_db" and "normals_db" of half
        as many views beside the colours by the same cameras, and "given_db" of colours beside one that is given,
        without a caption.
        """
        pool, views = self.held_out, self.held_out.num_views
        colors = torch.arange(views)
        error, measured = self._measure(Sets.same(colors), self.held_out_tokens)
        found = {
            "error": float(error.mean()),
            "weighted": float((error * self.weights).mean()),
            "denoised_db": measured,
        }
        if self.sets.domains:
            half = colors[:: 2 if views > 1 else 1][: max(views // 2, 1)]
            for index, domain in enumerate(DOMAINS[1:], start=1):
                beside = Sets.same(torch.cat([half, index * views + half]), counted=len(half))
                found[f"{domain}_db"] = self._measure(beside, self.held_out_tokens)[1]
        if self.sets.given:
            others = Sets.same(colors, given=1, counted=views - 1)
            found["given_db"] = self._measure(others, self.empty.expand(len(pool), -1))[1]
        return found

    def _measure(self, sets: Sets, tokens: Tensor) -> tuple[Tensor, float]:
        """Squared errors of what is predicted of held-out scenes, ``[N, S, C, h, w]``, and how well the slots that
        count are denoised, in dB. sets: one for all scenes."""
        generator = torch.Generator().manual_seed(0)
        errors, missed, levels, clean = [], [], [], []
        for rows in torch.arange(len(self.held_out)).split(16):
            some = sets.expand(len(rows))
            latents, camera = self.held_out.pick(rows, some.picks)
            t = torch.arange(len(rows)) % 8 * 125 + 62
            noise = torch.randn(latents.shape, generator=generator)
            output, target, x_t = self._predict(latents, camera, t, tokens[rows], noise, some.given)
            errors.append((output - target).square())
            x0 = latents.to(x_t.device).float()[:, -sets.counted :]
            denoised = self.schedule.to_x0(output, x_t, t.to(x_t.device))[:, -sets.counted :]
            missed.append(((denoised - x0).square() * self.costs).mean((1, 2, 3, 4)))
            levels.append(t)
            clean.append(x0)
        squared, level, x0 = torch.cat(missed), torch.cat(levels).to(missed[0].device), torch.cat(clean)
        variance = ((x0 - x0.mean((0, 1, 3, 4), keepdim=True)).square() * self.costs).mean()
        ratios = torch.stack([variance / squared[level == t].mean() for t in level.unique()])
        return torch.cat(errors), float((10 * ratios.log10()).mean())

    def _predict(
        self, latents: Tensor, camera: Tensor, t: Tensor, tokens: Tensor, noise: Tensor, given: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the UNet predicts, what it should, and the latents it saw, each ``[B, S, C, h, w]``: noisy ones at
        timestep ``t [B]``, and clean ones at 0 where they are given, ``[B, S]``."""
        device = self.unet.device
        x0, noise, t, given = latents.to(device).float(), noise.to(device), t.to(device), given.to(device)
        slots = x0.shape[1]
        target, x_t = self.schedule.target(x0, noise, t), self.schedule.add_noise(x0, noise, t)
        x_t = torch.where(given[..., None, None, None], x0, x_t)
        output = self.unet(
            x_t.flatten(0, 1),
            torch.where(given, 0, t[:, None]).flatten(),
            self.text(input_ids=tokens.to(device)).last_hidden_state,
            class_labels=camera.to(device).flatten(0, 1),
            cross_attention_kwargs={"context": AttentionContext(num_views=slots)},
        ).sample
        return output.float().view_as(target), target, x_t


def _tokens(backbone: Backbone, captions: list[str]) -> Tensor:
    """Captions as the text tower reads them, ``[N, L]`` long."""
    return backbone.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
