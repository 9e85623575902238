"""Recipes: ordered, named stages for `gen3d.optimize.optimize`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gen3d.stages.base import Beginning, Chosen, Given, StageConfig
from gen3d.stages.config import (
    ExtractConfig,
    ReconstructConfig,
    RedrawConfig,
    RefineConfig,
    TextureConfig,
)
from gen3d.stages.configs.checks import check_latents

if TYPE_CHECKING:
    from diffusion.facts import BackboneFacts
    from gen3d.optimize import Stage
    from gen3d.representations.base import RepresentationConfig

Recipe = Mapping[str, StageConfig]
_BEGINNINGS: dict[Beginning, str] = {"views": "the hull of views", "other": "another representation"}


def quickstart() -> dict[str, StageConfig]:
    """Words to a textured mesh: rounds of sampled views and a fitted field, a mesh, refined against the views and drawn
    once more, and its texture. Afterwards `gen3d.mesh_state.load_mesh(state)` is the textured mesh, and `views/...` in
    the state are the last views."""
    return {
        "reconstruct": ReconstructConfig(),
        "extract": ExtractConfig(),
        "refine": RefineConfig(),
        "redraw": RedrawConfig(),
        "texture": TextureConfig(),
    }


def check_recipe(recipe: Recipe, chosen: Chosen, *, init_mesh: bool = False) -> None:
    """Refuse, with a ValueError, a recipe without stages, one that lacks a component, and a loss or words that no stage
    uses; or a mesh to begin with, where `init_mesh` says that there is one."""
    if not used_stages(recipe):
        raise ValueError("recipe has no stage with something to do; choose a recipe or add stages")
    needed: set[str] = set()
    for name, stage, taken in _with_choices(recipe, chosen):
        needed |= stage.needs()
        if "distillation" in stage.needs() and taken.distillation is None:
            raise ValueError(f"recipe.{name} needs a loss; choose one, such as distillation=sds")
        with _named(name):
            stage.check(taken)
    if not any(stage.samples for stage in used_stages(recipe).values()):
        chosen.prior.check_unsampled()
    _check_heeded(recipe, chosen)
    _check_beginnings(recipe, chosen, init_mesh)
    if chosen.distillation is not None and "distillation" not in needed:
        raise ValueError("no stage of the recipe uses distillation; leave it out, or choose another recipe")


def _check_heeded(recipe: Recipe, chosen: Chosen) -> None:
    """Refuse, with a ValueError, words beside the prompt that nothing follows, and settings of pictures that nothing
    asks for."""
    stages = used_stages(recipe).values()
    heeded = {each for stage in stages for each in stage.heeds(chosen)}
    for prior in dict.fromkeys([chosen.prior, *(each for stage in stages for each in stage.priors(chosen))]):
        if (prior, "source") not in heeded:
            prior.check_unsourced()
        if (prior, "domains") not in heeded:
            prior.check_undrawn()
    if chosen.negative_prompt and "negative" not in {word for _, word in heeded}:
        loss = getattr(chosen.distillation, "name", "")
        raise ValueError(
            f"negative_prompt has no effect, for distillation {loss!r} does not look at it; leave it out, or choose "
            "another loss"
        )


def check_order(recipe: Recipe, *, views: bool = False) -> None:
    """Refuse, with a ValueError, a stage that needs what none before it leaves, and a recipe without a mesh; `views`
    says that the run was given some."""
    there: set[str] = {"views"} if views else set()
    for name, stage in used_stages(recipe).items():
        lacks = sorted(stage.reads - there)
        if lacks:
            makers = [other for other, each in recipe.items() if set(lacks) & each.makes]
            hint = f"; {' and '.join(makers)} must come before it" if makers else ""
            raise ValueError(
                f"recipe.{name} needs {' and '.join(lacks)}, which no stage before it leaves{hint}"
            )
        there |= stage.makes
    if "mesh" not in there:
        raise ValueError("no stage of the recipe makes a mesh; add one, such as extract")


def made_by_model(recipe: Recipe, chosen: Chosen) -> bool:
    """Whether a generative model takes part in what the recipe makes."""
    return any(prior.is_model for stage in used_stages(recipe).values() for prior in stage.priors(chosen))


def check_backbone(recipe: Recipe, chosen: Chosen, facts: BackboneFacts) -> None:
    """Refuse, with a ValueError, what the priors cannot do with such a backbone, and colours that are no latents of it,
    before it is loaded. `build_stages` looks once more, at what is not known before."""
    for name, stage, taken in _with_choices(recipe, chosen):
        with _named(name):
            stage.check_rules(lambda config, taken=taken: (config or taken.prior).rules(facts))
            if taken.representation.latents:
                check_latents(taken.representation.num_channels, facts.latent_channels)


def used_stages(recipe: Recipe) -> dict[str, StageConfig]:
    """The stages that have something to do."""
    return {name: stage for name, stage in recipe.items() if not stage.left_out}


def build_stages(recipe: Recipe, given: Given) -> list[Stage]:
    """The stages of `recipe` in order, under their names in it. ValueError where one does not go with what is given."""
    check_recipe(recipe, given.chosen)
    stages = []
    for name, config, chosen in _with_choices(recipe, given.chosen):
        with _named(name):
            stage = config.build(given.choosing(chosen))
        stage.name = name
        stages.append(stage)
    return stages


def _with_choices(recipe: Recipe, chosen: Chosen) -> Iterator[tuple[str, StageConfig, Chosen]]:
    """The stages that have something to do, each with what is chosen for it: a stage may hand on another
    representation."""
    for name, stage in used_stages(recipe).items():
        yield name, stage, chosen
        chosen = stage.hands_on(chosen)


def _check_beginnings(recipe: Recipe, chosen: Chosen, init_mesh: bool) -> None:
    """Refuse settings of how a representation begins, and of its resolutions, that have no effect; and a mesh to begin
    with that no stage begins with."""
    begun: dict[RepresentationConfig, set[Beginning]] = {}
    levels: dict[RepresentationConfig, int] = {}
    there = False
    for _, stage, before in _with_choices(recipe, chosen):
        own = stage.hands_on(before).representation
        anew = not there or own is not before.representation or stage.begins != "own"
        if stage.begins is not None and anew:
            begun.setdefault(own, set()).add(stage.begins)
        there = there or stage.begins is not None
        levels[own] = max(levels.get(own, 0), stage.levels)
    if init_mesh and not any("own" in kinds for kinds in begun.values()):
        raise ValueError(
            "no stage of the recipe begins with init_mesh; leave it out, or choose another recipe, such as distill"
        )
    for representation, kinds in begun.items():
        # A mesh to begin with stands in for whatever beginning a budget describes, and is no contradiction.
        if "own" not in kinds:
            representation.check_beginning(f"it begins with {_BEGINNINGS[sorted(kinds)[0]]}")
    for representation, count in levels.items():
        if count:
            representation.check_levels(count)


@contextmanager
def _named(stage: str) -> Iterator[None]:
    """A ValueError within says which stage of the recipe it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"recipe.{stage}: {error}") from None
