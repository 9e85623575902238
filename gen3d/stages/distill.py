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
from gen3d.distillation.inject import clip_gradient, inject
from gen3d.optimize import Fit
from gen3d.priors.base import ScoringPrior
from gen3d.regularisers import distortion, opaque, orient, sparsity
from gen3d.render.lamp import near_camera
from gen3d.representations.base import GROUP, Field, Rendered, Representation, load
from gen3d.schedules import Points, value_at
from gen3d.stages.base import Given
from gen3d.stages.config import DistillConfig
from gen3d.state import State

_GREY = (0.5, 0.5, 0.5)
_BACKGROUND, _TIMESTEP = "distill/background", "distill/timestep"


@dataclass(frozen=True, kw_only=True)
class _Opinion:
    prior: ScoringPrior
    loss: Loss
    weight: Points


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """Pictures of one object: by V cameras, and what was drawn for them."""

    cameras: Cameras
    rendered: Rendered
    generator: torch.Generator


class Distill(Fit):
    """One step renders `num_views` pictures around the object and applies the gradient of every guidance."""

    name = "distill"

    def __init__(self, config: DistillConfig, given: Given) -> None:
        self.config, self.num_steps = config, config.num_steps
        self.representation, self.device = given.chosen.representation, given.device
        self.init_mesh = given.init_mesh
        self.opinions: dict[str, _Opinion] = {}
        for name, one in config.opinions().items():
            prior, loss = given.prior(one.prior), one.loss or given.chosen.distillation
            if not isinstance(prior, ScoringPrior) or loss is None:
                raise ValueError(
                    f"guidance {name!r} needs a prior that predicts and a loss: choose distillation"
                )
            self.opinions[name] = _Opinion(prior=prior, loss=loss, weight=one.weight)
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
        if self.config.background == "learned":
            state[_BACKGROUND] = torch.logit(asked.clamp(0.02, 0.98))
        else:
            state[_BACKGROUND] = asked
        for one in self.opinions.values():
            one.loss.start(state, generator)

    def before(self, state: State, step: int, generator: torch.Generator) -> None:
        part = self._part(step)
        milestone = step == 0 or part != self._part(step - 1)
        if not milestone and step % self.config.refresh_every:
            return
        representation = load(self.representation, state)
        if milestone:
            representation = representation.level(part)
            state.drop(MOMENTS)  # of another size
        representation.refresh()
        representation.save(state)

    def rates(self, state: State, step: int) -> dict[str, float]:
        rate = value_at(self.config.learning_rate, step / self.num_steps)
        own = load(self.representation, state).rates()
        rates = {f"{GROUP}/{name}": rate * share for name, share in own.items()}
        if self.config.background == "learned":
            rates[_BACKGROUND] = self.config.background_rate
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
            size = config.render_size[self._part(step)]
            rendered = representation.render(views, size, background, generator=own, shade=shade)
            seen.append(_Seen(cameras=views, rendered=rendered, generator=own))
        losses = {
            name: value_at(one.weight, progress) * self._guide(one, seen, level, progress, state)
            for name, one in self.opinions.items()
        }
        losses |= self._regularisers(representation, seen, progress)
        return losses | representation.regularisers(generator)

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        one = next(iter(self.opinions.values()))
        low, high = self.config.annealing.range(step / self.num_steps)
        return {"timestep": float(self._timestep(one.prior, float(state[_TIMESTEP]), low, high))}

    def _part(self, step: int) -> int:
        """Which of the render sizes, and of the representation's resolutions, a step has."""
        return step * len(self.config.render_size) // self.num_steps

    def _asked_background(self, state: State) -> Tensor:
        if "views/backgrounds" in state:
            return state["views/backgrounds"][-1].clone()
        known = (one.prior.background for one in self.opinions.values())
        color = next((color for color in known if color is not None), _GREY)
        return torch.tensor(color, device=torch.device(self.device))

    def _background(self, state: State, count: int, generator: torch.Generator) -> Tensor:
        """`[count, 3]`."""
        if self.config.background == "random":
            colors = torch.rand(count, 3, generator=generator, device=generator.device)
            return colors.to(self.device)
        own = state[_BACKGROUND]
        return (torch.sigmoid(own) if self.config.background == "learned" else own).expand(count, 3)

    @staticmethod
    def _timestep(prior: ScoringPrior, drawn: float, low: float, high: float) -> int:
        last = prior.schedule.num_timesteps - 1
        return round((low + (high - low) * drawn) * last)

    def _guide(
        self, one: _Opinion, seen: Sequence[_Seen], level: float, progress: float, state: State
    ) -> Tensor:
        """The injected gradient of one guidance, a mean over this process's objects."""
        prior, total = one.prior, []
        low, high = self.config.annealing.range(progress)
        timestep = self._timestep(prior, level, low, high)
        for each in seen:
            full = (prior.image_size, prior.image_size)
            images = F.interpolate(
                each.rendered.images, full, mode="bilinear", antialias=True, align_corners=False
            )
            latents = prior.encode(images)
            latents = latents.view(-1, prior.num_views, *latents.shape[1:])
            gradient = self._gradient(one, latents.detach(), timestep, each, state)
            clipped = clip_gradient(gradient, self.config.max_gradient)
            total.append(inject(latents, clipped) / latents[0].numel())
        return torch.stack(total).mean()

    @torch.no_grad()
    def _gradient(self, one: _Opinion, latents: Tensor, timestep: int, seen: _Seen, state: State) -> Tensor:
        generator, prior = seen.generator, one.prior
        noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents.device)
        times = torch.full((len(latents),), timestep, device=latents.device)
        scores = Scores(
            prior=prior,
            noisy=prior.schedule.add_noise(latents, noise, times),
            timestep=times,
            cameras=seen.cameras,
            together=one.loss.conditions(prior, seen.cameras),
        )
        return one.loss(scores, latents, noise, state, generator)

    def _regularisers(
        self, representation: Representation, seen: Sequence[_Seen], progress: float
    ) -> dict[str, Tensor]:
        opacity = torch.cat([each.rendered.opacity.flatten() for each in seen])
        weights = {
            name: value_at(getattr(self.config, name), progress)
            for name in ("sparsity", "opaque", "orient", "distortion")
        }
        losses: dict[str, Tensor] = {}
        if weights["sparsity"]:
            losses["sparsity"] = weights["sparsity"] * sparsity(opacity)
        if weights["opaque"]:
            losses["opaque"] = weights["opaque"] * opaque(opacity)
        if not (weights["orient"] or weights["distortion"]):
            return losses
        rays = [each.rendered.rays for each in seen]
        if not isinstance(representation, Field) or None in rays:
            raise ValueError(
                f"distill orient and distortion need a field, which {type(representation).__name__} is not: "
                "set them to 0"
            )
        met = [each for each in rays if each is not None]
        if weights["distortion"]:
            fog = torch.stack([distortion(each.weights, each.t, each.step) for each in met]).mean()
            losses["distortion"] = weights["distortion"] * fog
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
