"""A prior: what a model thinks of pictures taken by given cameras. The joint between stages and models.

Legend: B objects, V views of each, C latent channels, h x w latent pixels, K conditions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol

from diffusion.domains import DOMAINS, check_domains

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffusion.backbone import Backbone
    from diffusion.domains import Domain
    from diffusion.facts import BackboneFacts
    from diffusion.schedule import Schedule
    from gen3d.cameras import Cameras


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted of a model: the words, and the backbone that shall draw them."""

    backbone: Backbone
    prompt: Annotated[str, "text"]
    negative_prompt: Annotated[str, "text"] = ""


class Rules(Protocol):
    """What stages may ask of a prior. A prior says so itself, and its settings do before a model is loaded."""

    @property
    def num_views(self) -> int:
        """How many views of an object it sees at once: what is asked of it is a multiple."""
        ...

    @property
    def domains(self) -> tuple[Domain, ...]:
        """What its pictures can show."""
        ...

    def check_start(self, timestep: int | None) -> None:
        """Refuse, with a ValueError, a `start_timestep` that `sample` could not start from; None is from noise."""


@dataclass(frozen=True, kw_only=True)
class NoRules:
    """As long as nothing is known: whatever is asked may be right."""

    num_views: int = 1
    domains: tuple[Domain, ...] = DOMAINS

    def check_start(self, timestep: int | None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class PriorConfig(ABC):
    """Settings of a prior; the base of all that `prior=` can choose."""

    @property
    def predicts(self) -> bool:
        """Whether it can score pictures, as distillation needs, or only has finished ones."""
        return True

    @property
    def is_model(self) -> bool:
        """Whether what it gives is made by a generative model."""
        return True

    def conditions(self, negative_prompt: str) -> frozenset[str]:
        """What losses can ask it for beside "cond" and "uncond": of "negative", "source" and "tuning"
        (`ScoringPrior.tuned`)."""
        return frozenset({"negative"} if negative_prompt else ())

    def check_words(self, prompt: str, negative_prompt: str) -> None:  # noqa: B027
        """Refuse, with a ValueError, words that it would pass over."""

    def check_unsampled(self) -> None:  # noqa: B027
        """Refuse, with a ValueError, settings of finished pictures, which no stage of the recipe asks for."""

    def check_unsourced(self) -> None:  # noqa: B027
        """Refuse, with a ValueError, settings of source words, which no loss of the recipe asks for."""

    def check_undrawn(self) -> None:  # noqa: B027
        """Refuse, with a ValueError, settings of pictures of depth and normals, which no stage of the recipe asks
        for."""

    def rules(self, facts: BackboneFacts) -> Rules:
        """The rules of what `build` will make with such a backbone; ValueError where the two do not go together."""
        return NoRules()

    @abstractmethod
    def build(self, request: Request) -> Prior:
        """The prior for `request`; ValueError where the two do not go together."""


class Prior(ABC):
    """num_views: how many views of an object it sees at once. image_size: of its pictures, in pixels. domains: what
    they can show."""

    num_views: int
    image_size: int
    domains: tuple[Domain, ...] = ("color",)

    @abstractmethod
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
        """Finished pictures `[V, 3, H, W]`, sRGB in [0, 1], by V cameras, a multiple of `num_views`: from nothing, or
        from `init_images [V, 3, H, W]` noised to `start_timestep`.

        domains: what each shows, of the prior's `domains`; depth and normals as `gen3d.domain_pictures` draws them.
            None is colours.
        fixed: `[V]` bool, those of `init_images` that are given: they tell the others what to show, and come back as
            they are. Without `start_timestep` the others start from nothing.
        """

    def check_start(self, timestep: int | None) -> None:  # noqa: B027
        """As `Rules` say."""

    def check_views(
        self,
        cameras: Cameras,
        init_images: Tensor | None,
        domains: Sequence[Domain] | None,
        fixed: Tensor | None,
    ) -> None:
        """Refuse, with a ValueError, what `sample` is asked for beside words, if it does not go together."""
        count = len(cameras)
        if domains is not None:
            if len(domains) != count:
                raise ValueError(f"domains must be one for each of the {count} cameras, got {len(domains)}")
            check_domains(domains, self.domains)
        if fixed is not None and init_images is None:
            raise ValueError("fixed needs init_images, the pictures that are given")
        if fixed is not None and tuple(fixed.shape) != (count,):
            raise ValueError(f"fixed must be one for each of the {count} cameras, got {list(fixed.shape)}")

    @property
    def background(self) -> tuple[float, float, float] | None:
        """The plain sRGB colour that is asked for behind the object, where one is known."""
        return None


class ScoringPrior(Prior):
    """A prior that predicts, for score distillation.

    schedule: its noise levels, and what its predictions are of.
    """

    schedule: Schedule

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Pictures `[..., 3, H, W]` in [0, 1] to latents `[..., C, h, w]`, differentiable."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[..., C, h, w]` to pictures `[..., 3, H, W]` in [0, 1]."""

    @abstractmethod
    def predict(self, latents: Tensor, timestep: Tensor, cameras: Cameras, which: Sequence[str]) -> Tensor:
        """What it predicts of noisy `latents [B, V, C, h, w]` at `timestep [B]` by B V cameras, for K conditions in one
        pass: `[K, B, V, C, h, w]`, in the parameterisation of `schedule`.

        which: of "cond" (the prompt), "uncond" (no words), "negative" (the negative prompt), "source" (the words that a
        loss leads away from) and what else `guidance_conditions` names.
        """

    def check_source(self) -> None:
        """Refuse, with a ValueError, to be asked for "source" if there is no room for its words."""

    def tuned(self, rank: int) -> Tuned:
        """What it would predict with low-rank changes of its model; one for all that ask for the same. ValueError where
        its model cannot be changed so."""
        raise ValueError(
            f"a {type(self).__name__} has no model that could learn; choose another prior or another loss"
        )

    def guidance_conditions(self, cameras: Cameras) -> tuple[str, ...]:
        """The conditions that `direction` needs for these cameras, the unconditional one first."""
        return ("uncond", "cond")

    def direction(self, predictions: dict[str, Tensor], cameras: Cameras) -> Tensor:
        """Where guidance points: from the first of `guidance_conditions` to the conditional prediction."""
        first, *_ = self.guidance_conditions(cameras)
        return predictions["cond"] - predictions[first]


class Tuned(Protocol):
    """A prior whose model learns (LoRA): what learns is one vector of N numbers, which the caller keeps."""

    def begin(self, generator: torch.Generator) -> Tensor:
        """`[N]`, with which it predicts what the prior does."""
        ...

    def predict(
        self,
        weights: Tensor,
        latents: Tensor,
        timestep: Tensor,
        cameras: Cameras,
        known: Tensor | None = None,
    ) -> Tensor:
        """As `ScoringPrior.predict` for the prompt without words about the view: `[B, V, C, h, w]`, differentiable in
        `weights [N]`. known: `[B]` bool, objects of which it is told the cameras; None for all."""
        ...
