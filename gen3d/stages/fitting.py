"""What the stages that fit a representation have in common.

Legend: N pixels, C channels of colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3d.adam import GROUP as MOMENTS
from gen3d.adam import follow_rows
from gen3d.asset import Mesh
from gen3d.rays import draw_rays
from gen3d.regularisers import distortion
from gen3d.render.rays import render_rays
from gen3d.representations.base import GROUP, Field, RayRender, Representation, RepresentationConfig, load
from gen3d.stages.config import FittingConfig
from gen3d.state import State
from gen3d.views import Views

_SEEN = 1e-3  # opacity from which a pixel has a distance
_SMOOTH = 0.01  # world units below which an absolute error is smoothed into a squared one


def begin(config: RepresentationConfig, mesh: Mesh | None, device: torch.device | str) -> Representation:
    """The representation at its beginning: `mesh`, where there is one."""
    return config.begin(device) if mesh is None else config.begin_from(mesh, device)


def refresh(config: RepresentationConfig, state: State) -> None:
    """Let the state's representation note anew what is empty."""
    representation = load(config, state)
    representation.refresh()
    representation.save(state)


def take_level(config: RepresentationConfig, state: State, index: int) -> None:
    """The state's representation at the next of its resolutions; its moments begin anew, for they had another size."""
    representation = load(config, state).level(index)
    representation.refresh()
    representation.save(state)
    state.drop(f"{MOMENTS}/{GROUP}")


def learning_rates(
    config: RepresentationConfig, state: State, rate: float, progress: float
) -> dict[str, float]:
    """`rate` times its own share for each tensor of the state's representation that learns."""
    own = load(config, state).rates(progress)
    return {f"{GROUP}/{name}": rate * share for name, share in own.items()}


def finish_step(
    config: RepresentationConfig, state: State, progress: float, generator: torch.Generator
) -> None:
    """Let the state's representation do what it does after a step (`Representation.after_step`), and the optimiser's
    moments follow the rows that it replaces. Call it while the tensors still have the step's gradients."""
    gradients = {name: t.grad for name, t in state.group(GROUP).items() if t.grad is not None}
    representation = load(config, state)
    replaced = representation.after_step(gradients, progress, generator)
    if replaced is None:
        return
    representation.save(state)
    for name, rows in replaced.items():
        follow_rows(state, f"{GROUP}/{name}", rows)


def fit_losses(
    representation: Representation,
    views: Views,
    config: FittingConfig,
    progress: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """What pixels of `representation` miss of `views`, and its own regularisers; by name, weighted."""
    weights = config.weights(progress)
    if views.depth is None:
        weights.pop("depth", None)
    if views.normals is None:
        weights.pop("normals", None)
    if isinstance(representation, Field):
        seen, wanted, rays = _rays(representation, views, config.num_rays, "normals" in weights, generator)
    else:
        seen, wanted = _pictures(representation, views, config.num_rays, "normals" in weights, generator)
        rays = None
    losses: dict[str, Tensor] = {"color": (seen.color - wanted.color).square().mean()}
    if "mask" in weights:
        losses["mask"] = weights["mask"] * (seen.opacity - wanted.opacity).square().mean()
    if "distortion" in weights:
        if rays is None:
            raise ValueError(
                f"fit distortion needs a field, which {type(representation).__name__} is not: set it to 0"
            )
        losses["distortion"] = weights["distortion"] * distortion(rays.weights, rays.t, rays.step)
    if "depth" in weights:
        losses["depth"] = weights["depth"] * _depth_error(seen, wanted)
    if "normals" in weights:
        losses["normals"] = weights["normals"] * _normal_error(seen, wanted)
    return losses | representation.regularisers(generator)


@dataclass(frozen=True, kw_only=True)
class _Pixels:
    """color `[N, C]`, opacity `[N]`, depth `[N]`: distance, times opacity where it was rendered, 0 where there is
    none; normals `[N, 3]` times opacity."""

    color: Tensor
    opacity: Tensor
    depth: Tensor | None
    normals: Tensor | None


def _rays(
    field: Field, views: Views, count: int, normals: bool, generator: torch.Generator
) -> tuple[_Pixels, _Pixels, RayRender]:
    """Random single rays, and what they should see."""
    rays = draw_rays(views, count, generator)
    met = render_rays(
        field,
        rays.origins,
        rays.directions,
        rays.background,
        num_samples=field.num_samples,
        generator=generator,
        normals=normals,
    )
    seen = _Pixels(color=met.rgb, opacity=met.opacity, depth=met.depth, normals=met.normals)
    wanted = _Pixels(color=rays.color, opacity=rays.mask, depth=rays.depth, normals=rays.normals)
    return seen, wanted, met


def _pictures(
    representation: Representation, views: Views, count: int, normals: bool, generator: torch.Generator
) -> tuple[_Pixels, _Pixels]:
    """Random whole pictures of about `count` pixels together, and what they should show."""
    size = views.images.shape[-1]
    number = min(len(views), max(1, round(count / size**2)))
    chosen = torch.randperm(len(views), generator=generator, device=generator.device)[:number]
    looked = views[chosen.to(views.images.device)]
    got = representation.render(
        looked.cameras, size, looked.backgrounds, generator=generator, normals=normals
    )

    def pixels(image: Tensor) -> Tensor:
        return image.movedim(1, -1).flatten(0, 2)

    def values(image: Tensor | None) -> Tensor | None:
        return None if image is None else pixels(image)[:, 0]

    def vectors(image: Tensor | None) -> Tensor | None:
        return None if image is None else pixels(image)

    seen = _Pixels(
        color=pixels(got.images),
        opacity=pixels(got.opacity)[:, 0],
        depth=values(got.depth),
        normals=vectors(got.normals),
    )
    wanted = _Pixels(
        color=pixels(looked.images),
        opacity=pixels(looked.masks)[:, 0],
        depth=values(looked.depth),
        normals=vectors(looked.normals),
    )
    return seen, wanted


def _depth_error(seen: _Pixels, wanted: _Pixels) -> Tensor:
    """Mean absolute error of the distance, by opacity, where it is known. Squared, the last hundredths would weigh
    nothing beside colours, and walls that are only seen aslant would stay too thick."""
    if seen.depth is None:
        raise ValueError("fit depth needs a representation that renders its depth: set it to 0")
    assert wanted.depth is not None
    known = (wanted.depth > 0.0) & (wanted.opacity > 0.5)
    missed = seen.depth / seen.opacity.clamp_min(_SEEN) - wanted.depth
    return (known * seen.opacity.detach() * (missed.square() + _SMOOTH**2).sqrt()).mean()


def _normal_error(seen: _Pixels, wanted: _Pixels) -> Tensor:
    """Mean squared length of the difference of the normals, both by opacity, where they are known."""
    if seen.normals is None:
        raise ValueError("fit normals needs a representation that renders its normals: set it to 0")
    assert wanted.normals is not None
    known = (wanted.normals != 0.0).any(dim=-1) | (wanted.opacity < 0.5)
    return (known * (seen.normals - wanted.normals).square().sum(dim=-1)).mean()
