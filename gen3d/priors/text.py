"""The prior of a text-to-image or text-to-multiview backbone: words decide.

Legend: B objects, V views of each, C latent channels, h x w latent pixels, K conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from diffusion.adapters.lora import LowRank
from diffusion.conditioning import Conditioning, Inputs
from diffusion.domains import Domain, domain_indices
from diffusion.guidance import predict_together
from diffusion.samplers import sample_views
from gen3d.cameras import Cameras
from gen3d.priors.base import Request, ScoringPrior
from gen3d.priors.config import SamplingConfig, TextPriorConfig
from gen3d.priors.perp_neg import ViewWords, perp_neg_direction, view_words, weights_of
from gen3d.prompts import (
    Color,
    Contradicts,
    Direction,
    Said,
    background_of,
    direction,
    is_blank,
    say,
    say_source,
    speaks_of_background,
    view_clause,
    without,
)

_PERPENDICULAR = ("perpendicular_1", "perpendicular_2")


class TextPrior(ScoringPrior):
    """Views of a set see each other where the backbone is a multiview one with cameras; other backbones make one view
    at a time and are told in words which. Sets see each other's content only through `init_images`; those of one call
    are as large as `joint_views` allows and hold its views in the order given, so that what belongs together must come
    together.

    contradicts: what is left out of the prompt for a view; None for what is set. A language model may tell it.
    """

    def __init__(
        self, config: TextPriorConfig, request: Request, contradicts: Contradicts | None = None
    ) -> None:
        if is_blank(request.prompt):
            raise ValueError("prompt is empty; say what to make, for example prompt='a red mushroom'")
        config.check_words(request.prompt, request.negative_prompt)
        self.config, self.request, self.backbone = config, request, request.backbone
        backbone = self.backbone
        self.schedule, self.image_size = backbone.schedule, backbone.image_size
        self.rules = config.rules(backbone.facts)
        self.num_views, self.domains = self.rules.num_views, self.rules.domains
        self.is_alone = self.num_views == 1
        self.said: Said = say(
            request.prompt,
            backbone.shorten,
            background=config.background,
            num_views=self.num_views,
        )
        self.prompt = self.said.text
        self.contradicts = contradicts or config.contradictions
        if config.background not in ("", "auto") and not speaks_of_background(self.prompt):
            raise ValueError(
                f"prior background is {config.background!r}, which leaves no room for the prompt in the "
                f"{backbone.max_tokens} tokens that the text encoder reads; describe it in fewer words"
            )
        self._encoded: dict[str, Conditioning] = {}
        self._tuned: dict[int, TunedText] = {}
        if config.source_prompt:
            self.check_source()

    @cached_property
    def background(self) -> Color | None:
        return background_of(self.prompt)

    @cached_property
    def _source(self) -> Said:
        config, shorten = self.config, self.backbone.shorten
        return say_source(
            config.source_prompt, config.source_suffix, self.said, shorten, num_views=self.num_views
        )

    def check_source(self) -> None:
        room = f"the {self.backbone.max_tokens} tokens that the text encoder reads"
        if not self._source.left_out:
            return
        if self.config.source_prompt:
            raise ValueError(f"prior source_prompt is longer than {room}; say it in fewer words")
        raise ValueError(
            f"the prompt leaves no room for source_suffix in {room}; give prior source_prompt instead"
        )

    def check_start(self, timestep: int | None) -> None:
        self.rules.check_start(timestep)

    def sample(
        self,
        cameras: Cameras,
        generator: torch.Generator,
        *,
        init_images: Tensor | None = None,
        start_timestep: int | None = None,
        domains: Sequence[Domain] | None = None,
        fixed: Tensor | None = None,
    ) -> Tensor:
        self.check_views(cameras, init_images, domains, fixed)
        if len(cameras) % self.num_views:
            raise ValueError(
                f"backbone {self.backbone.name!r} makes {self.num_views} views at once, got {len(cameras)}"
            )
        together = self._views_together(len(cameras))
        groups = len(cameras) // together
        if init_images is not None:
            init_images = init_images.view(groups, together, *init_images.shape[1:])
        if fixed is not None and self.is_alone:
            raise ValueError("views that are alone see no others, so that none can be fixed for them")
        shown: Sequence[Domain] = domains or ("color",) * len(cameras)
        sampling = self._sampling(shown, fixed)
        images = sample_views(
            self.backbone,
            self._conditioning("cond", cameras),
            cameras.c2w.view(groups, together, 4, 4) if self.backbone.has_camera else None,
            generator=generator,
            guidance_scale=sampling.guidance_scale,
            guidance_rescale=sampling.guidance_rescale,
            num_steps=sampling.num_steps,
            negative_prompt=self.request.negative_prompt,
            # Who has learned colours alone need not be told of them.
            domains=None if set(shown) == {"color"} else domain_indices(shown).view(groups, together),
            init_images=init_images,
            start_timestep=start_timestep,
            fixed=None if fixed is None else fixed.view(groups, together),
        )
        return images.flatten(0, 1).float()

    def _sampling(self, domains: Sequence[Domain], fixed: Tensor | None) -> SamplingConfig:
        """How what is to be made of such views is sampled."""
        given = [False] * len(domains) if fixed is None else fixed.tolist()
        made = {domain for domain, is_given in zip(domains, given, strict=True) if not is_given}
        return (
            self.config.domain_sampling
            if "color" in domains and "color" not in made
            else self.config.sampling
        )

    def encode(self, images: Tensor) -> Tensor:
        return self.backbone.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.backbone.decode(latents)

    @torch.no_grad()
    def predict(self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]) -> Tensor:
        objects, views = latents.shape[:2]
        camera = cameras.c2w.view(objects, views, 4, 4) if self.backbone.has_camera else None
        inputs = [Inputs(conditioning=self._conditioning(name, cameras), camera=camera) for name in which]
        return torch.stack(predict_together(self.backbone.denoise, latents, timestep, inputs))

    def tuned(self, rank: int) -> TunedText:
        if rank not in self._tuned:
            unet, together = self.backbone.unet, self.backbone.num_views > 1
            self._tuned[rank] = TunedText(
                LowRank(unet, rank=rank, multiview=together), self._encode(self.prompt)
            )
        return self._tuned[rank]

    def guidance_conditions(self, cameras: Cameras) -> tuple[str, ...]:
        first = "negative" if self.request.negative_prompt else "uncond"
        return (first, "cond", *(_PERPENDICULAR if self.config.perp_neg else ()))

    def direction(self, predictions: dict[str, Tensor], cameras: Cameras) -> Tensor:
        if not self.config.perp_neg:
            return super().direction(predictions, cameras)
        first, *others = self.guidance_conditions(cameras)
        uncond = predictions[first]
        flat = [(predictions[name] - uncond).flatten(0, 1) for name in others]
        weights = weights_of(self._words(cameras), uncond.device)
        return perp_neg_direction(flat[0], torch.stack(flat[1:]), weights).view_as(uncond)

    def _views_together(self, count: int) -> int:
        """The largest set up to `joint_views` that `count` views, a multiple of the backbone's own, fill evenly."""
        own = self.num_views
        if own == 1 or not self.backbone.has_camera:
            return own
        sets = [size for size in range(own, self.config.joint_views + 1, own) if count % size == 0]
        return max(sets, default=own)

    def _conditioning(self, name: str, cameras: Cameras) -> Conditioning:
        """One row for all views, or one for each."""
        if name == "uncond":
            return self._encode("")
        if name == "negative":
            return self._encode(self.request.negative_prompt)
        prompt = self._source.text if name == "source" else self.prompt
        if name in _PERPENDICULAR:
            return self._negative_words(cameras, _PERPENDICULAR.index(name))
        if name not in ("cond", "source"):
            raise ValueError(f"there is no condition {name!r}; there are cond, uncond, negative and source")
        if not self.is_alone:
            return self._encode(prompt)
        if not self.config.perp_neg:
            azimuths, elevations = cameras.angles()
            views = zip(azimuths, elevations, strict=True)
            return Conditioning.cat([self._view(direction(*one), prompt) for one in views])
        rows = []
        for words in self._words(cameras):
            parts = Conditioning.cat([self._view(view, prompt) for view, _ in words.positive])
            rows.append(parts.mixed([share for _, share in words.positive]))
        return Conditioning.cat(rows)

    def _negative_words(self, cameras: Cameras, index: int) -> Conditioning:
        said = [words.negative[index : index + 1] for words in self._words(cameras)]
        # A view without negatives gets words of weight 0.
        views: list[Direction] = [one[0][0] if one else "front" for one in said]
        return Conditioning.cat([self._view(view, self.prompt) for view in views])

    def _view(self, view: Direction, text: str) -> Conditioning:
        """One row: `text` as it is said of one view, less what contradicts it among the prompt's own words."""
        body = self.prompt.removesuffix(self.said.clause)
        if text.startswith(body):
            text = without(body, self.contradicts(body, view)) + text[len(body) :]
        return self._encode(text + view_clause(view))

    def _words(self, cameras: Cameras) -> list[ViewWords]:
        azimuths, elevations = cameras.angles()
        views = zip(azimuths, elevations, strict=True)
        return [
            view_words(azimuth, overhead=direction(azimuth, high) == "overhead") for azimuth, high in views
        ]

    def _encode(self, text: str) -> Conditioning:
        """One row."""
        if text not in self._encoded:
            self._encoded[text] = self.backbone.encode_prompt([text])
        return self._encoded[text]


class TunedText:
    """`Tuned` of a text prior. words: one row, the prompt alone."""

    def __init__(self, model: LowRank, words: Conditioning) -> None:
        self.model, self.words = model, words

    def begin(self, generator: torch.Generator) -> Tensor:
        return self.model.begin(generator).to(self.words.embeds.device)

    def predict(
        self,
        weights: Tensor,
        latents: Tensor,
        timestep: Tensor,
        cameras: Cameras,
        known: Tensor | None = None,
    ) -> Tensor:
        camera = cameras.c2w.to(latents.device).view(*latents.shape[:2], 4, 4)
        if known is not None:  # of a camera that is not known, nothing is embedded but zeros
            camera = camera * known.to(camera)[:, None, None, None]
        return self.model(weights, latents, timestep, Inputs(conditioning=self.words, camera=camera))
