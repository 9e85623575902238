"""Score distillation: pictures of a representation are pulled to what priors make of them.

Everything that is drawn for an object (a set of views) comes from a generator of its own, so that processes which share
the objects of a step see what one process would.

Legend: B objects, V views of each, C latent channels, h x w latent pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3d.adam import GROUP as MOMENTS
from gen3d.cameras import Cameras
from gen3d.distillation.base import Loss, Scores
from gen3d.distillation.inject import inject, limited
from gen3d.optimize import Fit
from gen3d.priors.base import ScoringPrior
from gen3d.regularisers import distortion, opaque, orient, sparsity, z_variance
from gen3d.render.lamp import near_camera
from gen3d.representations.base import GROUP, Field, Rendered, Representation, load
from gen3d.schedules import Points, value_at
from gen3d.stages.base import Given
from gen3d.stages.config import DistillConfig
from gen3d.stages.configs.checks import check_latents
from gen3d.stages.fitting import finish_step
from gen3d.state import Scope, State

_GREY = (0.5, 0.5, 0.5)
_BACKGROUND, _TIMESTEP, _SOURCE = "distill/background", "distill/timestep", "distill/source"
_MEMORY = "distillation"  # /<name of the guidance>/...


@dataclass(frozen=True, kw_only=True)
class _Opinion:
    """size: pixels of the pictures, or of the latents, that it is shown."""

    prior: ScoringPrior
    loss: Loss
    weight: Points
    size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """Pictures of one object: by V cameras, and what was drawn for them. source: pictures [V, 3, S, S] of what the
    distillation began with, by the same cameras, where a loss wants them."""

    cameras: Cameras
    rendered: Rendered
    source: Tensor | None
    generator: torch.Generator


class Distill(Fit):
    """One step renders `num_views` pictures around the object and applies the gradient of every guidance."""

    name = "distill"

    def __init__(self, config: DistillConfig, given: Given) -> None:
        self.config, self.num_steps = config, config.num_steps
        self.representation, self.device = given.chosen.representation, given.device
        self.init_mesh, self.latents = given.init_mesh, self.representation.latents
        self.opinions: dict[str, _Opinion] = {}
        for name, one in config.opinions().items():
            prior, loss = given.prior(one.prior), one.loss or given.chosen.distillation
            if not isinstance(prior, ScoringPrior) or loss is None:
                raise ValueError(
                    f"guidance {name!r} needs a prior that predicts and a loss: choose distillation"
                )
            if "source" in loss.wants():
                prior.check_source()
            loss.check(prior)
            size = self._latents_of(prior, _GREY).shape[-1] if self.latents else prior.image_size
            self.opinions[name] = _Opinion(prior=prior, loss=loss, weight=one.weight, size=size)
        self.wants_source = any("source_latents" in one.loss.wants() for one in self.opinions.values())
        self.views_together = config.views_together(given.prior)
        self.num_objects = config.num_views // self.views_together
        rank, count = given.share
        if self.num_objects % count:
            raise ValueError(
                f"{count} processes cannot share the {self.num_objects} objects of a step evenly: give distill "
                f"num_views a multiple of {count * self.views_together}"
            )
        self.mine = range(rank * self.num_objects // count, (rank + 1) * self.num_objects // count)

    def start(self, state: State, generator: torch.Generator) -> None:
        if not state.group(GROUP):
            mesh = self.init_mesh
            begun = self.representation.begin_from(mesh, self.device) if mesh is not None else None
            (begun or self.representation.begin(self.device)).save(state)
        asked = self._asked_background(state)
        if self.latents:
            asked = self._begin_latents(asked.tolist(), state)
        if self.config.background == "learned" and not self.latents:
            state[_BACKGROUND] = torch.logit(asked.clamp(0.02, 0.98))
        else:
            state[_BACKGROUND] = asked
        if self.wants_source:
            state.set_group(_SOURCE, {name: each.clone() for name, each in state.group(GROUP).items()})
        for name, one in self.opinions.items():
            shape = (one.prior.num_views, *self._latents_of(one.prior, (0.0, 0.0, 0.0)).shape[1:])
            one.loss.start(self._memory(name, state), one.prior, shape, generator)

    def before(self, state: State, step: int, generator: torch.Generator) -> None:
        part = self.part(step)
        milestone = step == 0 or part != self.part(step - 1)
        if not milestone and step % self.config.refresh_every:
            return
        representation = load(self.representation, state)
        if milestone:
            representation = representation.level(part)
            state.drop(f"{MOMENTS}/{GROUP}")  # of another size
        representation.refresh()
        representation.save(state)

    def rates(self, state: State, step: int) -> dict[str, float]:
        rate = value_at(self.config.learning_rate, step / self.num_steps)
        own = load(self.representation, state).rates(step / self.num_steps)
        rates = {f"{GROUP}/{name}": rate * share for name, share in own.items()}
        if self.config.background == "learned":
            rates[_BACKGROUND] = self.config.background_rate
        for name, one in self.opinions.items():
            rates |= {f"{_MEMORY}/{name}/{key}": value for key, value in one.loss.rates().items()}
        return rates

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        config, progress = self.config, step / self.num_steps
        representation = load(self.representation, state)
        cameras = config.cameras.draw(self.num_objects, self.views_together, progress, generator)
        cameras = cameras.to(self.device)
        shaded, bare, level = torch.rand(3, generator=generator, device=generator.device).tolist()
        state[_TIMESTEP] = torch.tensor(level)
        seeds = torch.randint(2**62, (self.num_objects,), generator=generator, device=generator.device)
        shading = config.shading
        lit = progress >= shading.begin and shaded < shading.probability
        seen = []
        for index in self.mine:
            own = torch.Generator(generator.device).manual_seed(int(seeds[index]))
            views = cameras[index * self.views_together : (index + 1) * self.views_together]
            shade = None
            if lit:
                shade = near_camera(
                    views, own, ambient=shading.ambient, textureless=bare < shading.textureless
                )
            background = self._background(state, len(views), own)
            size = config.render_size[self.part(step)]
            rendered = representation.render(views, size, background, generator=own, shade=shade)
            source = self._source(state, views, size, background)
            seen.append(_Seen(cameras=views, rendered=rendered, source=source, generator=own))
        losses: dict[str, Tensor] = {}
        for name, one in self.opinions.items():
            one.loss.before(self._memory(name, state), progress, generator)
            guided = self._guide(one, seen, level, progress, self._memory(name, state))
            weight = value_at(one.weight, progress)
            losses |= {name: weight * guided.pop("guidance")} | {f"{name}/{k}": v for k, v in guided.items()}
        losses |= self._regularisers(representation, seen, progress)
        return losses | representation.regularisers(generator)

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        finish_step(self.representation, state, step / self.num_steps, generator)
        one = next(iter(self.opinions.values()))
        low, high = self.config.annealing.range(step / self.num_steps)
        return {"timestep": float(self._timestep(one.prior, float(state[_TIMESTEP]), low, high))}

    def part(self, step: int) -> int:
        """Which of the render sizes, and of the representation's resolutions, a step has."""
        return step * len(self.config.render_size) // self.num_steps

    def _asked_background(self, state: State) -> Tensor:
        if "views/backgrounds" in state:
            return state["views/backgrounds"][-1].clone()
        known = (one.prior.background for one in self.opinions.values())
        color = next((color for color in known if color is not None), _GREY)
        return torch.tensor(color, device=torch.device(self.device))

    @torch.no_grad()
    def _latents_of(self, prior: ScoringPrior, color: Sequence[float]) -> Tensor:
        """Latents `[1, C, h, w]` of a plain picture."""
        plain = torch.tensor(color, device=torch.device(self.device))[None, :, None, None]
        return prior.encode(plain.expand(1, 3, prior.image_size, prior.image_size))

    def _begin_latents(self, background: Sequence[float], state: State) -> Tensor:
        """Let the representation know what its latents look like; the latents `[C]` of a plain background."""
        prior = next(iter(self.opinions.values())).prior
        latents = self._latents_of(prior, background)
        representation = load(self.representation, state)
        check_latents(representation.num_channels, latents.shape[1])
        representation.learn_colors(prior)
        representation.save(state)
        return latents[0].mean(dim=(-1, -2))

    def _background(self, state: State, count: int, generator: torch.Generator) -> Tensor:
        """`[count, C]`."""
        if self.config.background == "random":
            colors = torch.rand(count, 3, generator=generator, device=generator.device)
            return colors.to(self.device)
        own = state[_BACKGROUND]
        squashed = self.config.background == "learned" and not self.latents
        return (torch.sigmoid(own) if squashed else own).expand(count, -1)

    @staticmethod
    def _timestep(prior: ScoringPrior, drawn: float, low: float, high: float) -> int:
        last = prior.schedule.num_timesteps - 1
        return round((low + (high - low) * drawn) * last)

    @staticmethod
    def _memory(name: str, state: State) -> Scope:
        return state.scope(f"{_MEMORY}/{name}")

    @torch.no_grad()
    def _source(self, state: State, cameras: Cameras, size: int, background: Tensor) -> Tensor | None:
        """The same views of what the distillation began with."""
        if not self.wants_source:
            return None
        return self.representation.load(state.group(_SOURCE)).render(cameras, size, background).images

    def _guide(
        self, one: _Opinion, seen: Sequence[_Seen], level: float, progress: float, memory: Scope
    ) -> dict[str, Tensor]:
        """The injected gradient of one guidance, and what its loss learns by: means over this process's objects."""
        prior, loss, config = one.prior, one.loss, self.config
        about = getattr(loss, "name", type(loss).__name__)
        bounds = (about, value_at(config.clip, progress), config.max_gradient)
        reach = config.annealing.range(progress)
        lowest, timestep, highest = (self._timestep(prior, share, *reach) for share in (0.0, level, 1.0))
        total: dict[str, list[Tensor]] = {"guidance": []}
        for each in seen:
            images, latents = self._as_seen(each.rendered.images, one)
            clean, times = latents.detach(), torch.full((len(latents),), timestep, device=latents.device)
            noise = torch.randn(clean.shape, generator=each.generator, device=each.generator.device)
            noise = noise.to(clean.device)
            scores = Scores(
                prior=prior,
                noisy=prior.schedule.add_noise(clean, noise, times),
                timestep=times,
                cameras=each.cameras,
                together=loss.conditions(prior, each.cameras),
                progress=progress,
                lowest=lowest,
                highest=highest,
                source=self._encoded(each.source, one) if "source_latents" in loss.wants() else None,
                surface=_shown(each).view(len(latents), prior.num_views, *each.rendered.images.shape[2:], 3)
                if "surface" in loss.wants()
                else None,
            )
            with torch.no_grad():
                gradient = loss(scores, clean, noise, memory, each.generator)
                of_images = None if self.latents else loss.image_gradient(scores, images.detach(), clean)
            guided = inject(latents, limited(gradient, *bounds)) / latents[0].numel()
            if of_images is not None:
                guided = guided + inject(images, limited(of_images, *bounds)) / images[0].numel()
            total["guidance"].append(guided)
            trained = loss.training_loss(scores, clean, memory, each.generator)
            if trained is not None:
                total.setdefault("training", []).append(trained)
        return {name: torch.stack(values).mean() for name, values in total.items()}

    def _as_seen(self, images: Tensor, one: _Opinion) -> tuple[Tensor, Tensor]:
        """Pictures `[V, C, S, S]` of one object at the prior's size, in sets that it sees together, and their latents;
        both the same, where the representation has latents for colours."""
        full, prior = (one.size, one.size), one.prior
        images = F.interpolate(images, full, mode="bilinear", antialias=True, align_corners=False)
        sets = images.view(-1, prior.num_views, *images.shape[1:])
        if self.latents:
            return sets, sets
        return sets, prior.encode(sets.flatten(0, 1)).unflatten(0, sets.shape[:2])

    @torch.no_grad()
    def _encoded(self, images: Tensor | None, one: _Opinion) -> Tensor | None:
        return None if images is None else self._as_seen(images, one)[1]

    def _regularisers(
        self, representation: Representation, seen: Sequence[_Seen], progress: float
    ) -> dict[str, Tensor]:
        opacity = torch.cat([each.rendered.opacity.flatten() for each in seen])
        weights = {
            name: value_at(getattr(self.config, name), progress)
            for name in ("sparsity", "opaque", "orient", "distortion", "z_variance")
        }
        losses: dict[str, Tensor] = {}
        if weights["sparsity"]:
            losses["sparsity"] = weights["sparsity"] * sparsity(opacity)
        if weights["opaque"]:
            losses["opaque"] = weights["opaque"] * opaque(opacity)
        if not (weights["orient"] or weights["distortion"] or weights["z_variance"]):
            return losses
        rays = [each.rendered.rays for each in seen]
        if not isinstance(representation, Field) or None in rays:
            raise ValueError(
                f"distill orient, distortion and z_variance need a field, which {type(representation).__name__} is "
                "not: set them to 0"
            )
        met = [each for each in rays if each is not None]
        if weights["distortion"]:
            fog = torch.stack([distortion(each.weights, each.t, each.step) for each in met]).mean()
            losses["distortion"] = weights["distortion"] * fog
        if weights["z_variance"]:
            spread = torch.stack([z_variance(each.weights, each.t, each.opacity) for each in met]).mean()
            losses["z_variance"] = weights["z_variance"] * spread
        if weights["orient"]:
            facing = [
                orient(
                    each.weights[each.kept[:, 0], each.kept[:, 1]],
                    representation.normals_at(each.points),
                    each.directions[each.kept[:, 0]],
                    int((each.opacity > 0).sum()),
                )
                for each in met
            ]
            losses["orient"] = weights["orient"] * torch.stack(facing).mean()
        return losses


@torch.no_grad()
def _shown(seen: _Seen) -> Tensor:
    """The points `[V, S, S, 3]` of the surface that pictures show, NaN where less than half of a pixel is covered."""
    rendered = seen.rendered
    if rendered.depth is None:
        raise ValueError("this loss needs a representation that renders its depth")
    size = rendered.images.shape[-1]
    origins, directions = seen.cameras.rays(size, size)
    opacity = rendered.opacity.movedim(1, -1)
    distance = rendered.depth.movedim(1, -1) / opacity.clamp_min(1e-6)
    return torch.where(opacity >= 0.5, origins + distance * directions, torch.nan)
