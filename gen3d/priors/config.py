"""Settings of the priors; nothing here needs torch before `build`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal

from diffusion.limits import check_range
from gen3d.limits import check_unused
from gen3d.priors.base import PriorConfig, Request
from gen3d.prompts import Direction, has_phrase, is_blank, speaks_of_background, without

if TYPE_CHECKING:
    from diffusion.domains import Domain
    from diffusion.facts import BackboneFacts
    from gen3d.priors.text import TextPrior


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Diffusion settings for finished pictures: num_steps over the whole schedule, the standard guidance_scale, and
    guidance_rescale in [0, 1]."""

    num_steps: int = 20
    guidance_scale: float = 2.5
    guidance_rescale: float = 0.5

    def __post_init__(self) -> None:
        check_range(self, 1, 1000, "num_steps", of="sampling")
        check_range(self, 0, 1000, "guidance_scale", hint="1 is no guidance", of="sampling")
        check_range(self, 0, 1, "guidance_rescale", of="sampling")


@dataclass(frozen=True, kw_only=True)
class Contradictions:
    """Words and phrases of the prompt that are not said of views which they contradict (prompt debiasing, arXiv
    2303.15413): of the back of "a smiling face of a corgi", say, "smiling face of a"."""

    front: tuple[Annotated[str, "text"], ...] = ()
    side: tuple[Annotated[str, "text"], ...] = ()
    back: tuple[Annotated[str, "text"], ...] = ()
    overhead: tuple[Annotated[str, "text"], ...] = ()

    def __call__(self, prompt: str, view: Direction) -> tuple[str, ...]:
        """As `gen3d.prompts.Contradicts`: what is set, whatever the prompt."""
        return getattr(self, view)

    def check(self, prompt: str) -> None:
        """Refuse, with a ValueError, words that are not in the prompt, and such as are all of it."""
        for each in fields(self):
            phrases = getattr(self, each.name)
            for phrase in phrases:
                if is_blank(phrase) or not has_phrase(prompt, phrase):
                    raise ValueError(
                        f"prior contradictions {each.name}: {phrase!r} is not in the prompt {prompt!r}"
                    )
            if is_blank(without(prompt, phrases)):
                raise ValueError(f"prior contradictions {each.name} leave nothing of the prompt {prompt!r}")


@dataclass(frozen=True, kw_only=True)
class TextPriorConfig(PriorConfig):
    """Words, and the backbone's opinion of pictures by them.

    sampling: of finished pictures. domain_sampling: of depth and normals alone, of views whose colours are given and
        leave little open.
    background: asked for in words; "auto" chooses one that the prompt's colours stand out from, "" asks for none.
    joint_views: at most so many views see each other. A multiview model's attention takes more than it was trained
        with, and views of one set agree far better than those of two. With 1, and of a backbone that makes one view at
        a time, each view is alone, and words say which it is (", front view" and so on).
    contradictions: words that are left out of views which are alone.
    perp_neg: views that are alone are steered away from the neighbouring views' words (Perp-Neg, arXiv 2304.04968).
    source_prompt: the condition "source" of losses that ask for it: what the pictures show or what is wrong with them;
        on the prompt's background. "" is the prompt with as many words of `source_suffix` behind it as the text encoder
        has room for (SDS-Bridge, arXiv 2406.09417).
    """

    name: Literal["text"] = "text"
    sampling: SamplingConfig = SamplingConfig()
    domain_sampling: SamplingConfig = SamplingConfig(num_steps=8, guidance_scale=1.0, guidance_rescale=0.0)
    background: Annotated[str, "text"] = "auto"
    joint_views: int = 8
    contradictions: Contradictions = Contradictions()
    perp_neg: bool = False
    source_prompt: Annotated[str, "text"] = ""
    source_suffix: Annotated[str, "text"] = (
        ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
    )

    def __post_init__(self) -> None:
        check_range(self, 1, 64, "joint_views", of="prior")
        if self.source_prompt:
            if is_blank(self.source_prompt):
                raise ValueError("prior source_prompt shows nothing; say what it is, or leave it out")
            check_unused("prior", self, ["source_suffix"], "source_prompt is given")
        elif is_blank(self.source_suffix):
            raise ValueError(
                "prior source_suffix shows nothing, so that the source would be the prompt; give a source_prompt, or "
                "leave it out"
            )

    def conditions(self, negative_prompt: str) -> frozenset[str]:
        return super().conditions(negative_prompt) | {"source", "tuning"}

    def check_unsourced(self) -> None:
        unasked = "no loss of the recipe asks for source words, as sds_bridge and dds do"
        check_unused("prior", self, ["source_prompt", "source_suffix"], unasked)

    def check_words(self, prompt: str, negative_prompt: str) -> None:
        check_background(self.background, prompt)
        self.contradictions.check(prompt)

    def check_unsampled(self) -> None:
        if self.sampling != SamplingConfig():
            raise ValueError(
                "prior sampling is of finished pictures, which no stage of the recipe asks for; leave it out"
            )

    def check_undrawn(self) -> None:
        undrawn = "no stage of the recipe asks for depth or normals, as reconstruct can (domains)"
        check_unused("prior", self, ["domain_sampling"], undrawn)

    def rules(self, facts: BackboneFacts) -> TextRules:
        return TextRules(config=self, facts=facts)

    def build(self, request: Request) -> TextPrior:
        from gen3d.priors.text import TextPrior

        return TextPrior(self, request)


@dataclass(frozen=True, kw_only=True, eq=False)
class TextRules:
    """What a text prior can be asked for, by its settings and its backbone's facts. ValueError where the two do not go
    together."""

    config: TextPriorConfig
    facts: BackboneFacts

    def __post_init__(self) -> None:
        own, joint = self.facts.num_views, self.config.joint_views
        if 1 < joint < own:
            raise ValueError(
                f"prior joint_views is {joint}, but backbone {self.facts.name!r} was made for {own} views that see "
                f"each other; give a multiple of {own}, or 1 for views that are alone"
            )
        alone = {
            "perp_neg": self.config.perp_neg,
            "contradictions": self.config.contradictions != Contradictions(),
        }
        for name, is_set in alone.items():
            if is_set and self.num_views > 1:
                raise ValueError(
                    f"prior {name} is for views that are alone: give joint_views 1, or leave it out"
                )

    @property
    def num_views(self) -> int:
        return 1 if self.config.joint_views == 1 else self.facts.num_views

    @property
    def domains(self) -> tuple[Domain, ...]:
        return self.facts.domains

    def check_start(self, timestep: int | None) -> None:
        from diffusion.samplers import make_scheduler, plan_timesteps

        plan_timesteps(make_scheduler(self.facts.scheduler), self.config.sampling.num_steps, timestep)


def check_background(background: str, prompt: str) -> None:
    """Refuse a chosen background beside the prompt's own words about it, which count."""
    if background not in ("", "auto") and speaks_of_background(prompt):
        raise ValueError(
            f"prior background is {background!r}, but the prompt speaks of its background itself; leave one of them out"
        )
