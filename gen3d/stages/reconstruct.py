"""Rounds of sampling views and fitting a field to them.

Round one samples the views of one object from noise. Every later round renders the field from new cameras, lets the
model improve these pictures (noised to a timestep and denoised, SDEdit), and fits the field to the result. A field
can only show pictures that agree with each other, so disagreements between views die out over the rounds.

Where depth and normals are wanted, a round draws them to its finished colours, which are given to the model as they
are: they then tell of the same figure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.domains import Domain
from gen3d.adam import GROUP as MOMENTS
from gen3d.agreement import believed
from gen3d.cameras import Cameras, orbit
from gen3d.optimize import Fit
from gen3d.representations.base import GROUP, Field, load_field
from gen3d.stages.base import Given
from gen3d.stages.config import ReconstructConfig
from gen3d.stages.fitting import finish_step, fit_losses, learning_rates, refresh
from gen3d.state import State
from gen3d.views import Views

_GOLDEN = 0.6180339887


class Reconstruct(Fit):
    """The stage of these rounds; leaves `representation/...` and the last `views/...` in the state. One step is one
    batch of rays; views are made before the first step of each round."""

    name = "reconstruct"

    def __init__(self, config: ReconstructConfig, given: Given) -> None:
        self.config, self.representation = config, given.chosen.representation
        self.prior, self.device = given.prior(), given.device
        self.num_steps = config.num_rounds * config.steps_per_round
        config.check_rules(given.prior)

    def start(self, state: State, generator: torch.Generator) -> None:
        for group in (GROUP, "views"):
            state.drop(group)

    def before(self, state: State, step: int, generator: torch.Generator) -> None:
        round_index, within = divmod(step, self.config.steps_per_round)
        if within == 0:
            self._begin_round(state, round_index, generator)
        if step % self.config.fit.refresh_every == 0:
            refresh(self.representation, state)

    def rates(self, state: State, step: int) -> dict[str, float]:
        # It falls over all rounds: a late round has little left to change, and as large a first step of Adam as an
        # early one's would roughen every surface anew.
        progress = step / self.num_steps
        return learning_rates(self.representation, state, self.config.fit.rate(progress), progress)

    def losses(self, state: State, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        progress = step / self.num_steps
        return fit_losses(self._field(state), Views.load(state), self.config.fit, progress, generator)

    def after(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        finish_step(self.representation, state, step / self.num_steps, generator)
        return {"round": float(step // self.config.steps_per_round)}

    def _field(self, state: State) -> Field:
        return load_field(self.representation, state)

    def _begin_round(self, state: State, index: int, generator: torch.Generator) -> None:
        config = self.config
        cameras = self._cameras(state, index, generator).to(self.device)
        if index == 0:
            images = self.prior.sample(cameras, generator)
        else:
            background = state["views/backgrounds"][-1].expand(len(cameras), 3)
            shown = self._field(state).render(cameras, self.prior.image_size, background).images
            timestep = config.timesteps[index - 1]
            images = self.prior.sample(cameras, generator, init_images=shown, start_timestep=timestep)
        further = {name: self._further(images, cameras, name, generator) for name in config.draws(index)}
        new = Views.from_images(images, cameras, threshold=config.mask_threshold, **further)
        if not bool((new.masks > 0.5).any()):
            raise ValueError(
                "the sampled views show nothing but background, so there is nothing to reconstruct; "
                "try another seed, a colour that differs more from the background, or a lower mask_threshold"
            )
        if new.depth is not None or new.normals is not None:
            new = believed(new)
        views = new if index == 0 else Views.cat([Views.load(state), new])
        first = config.group_size
        sizes = [first] + [first * config.groups] * index
        views = views[-sum(sizes[-config.keep_rounds :]) :]
        views.save(state)
        self._prepare_field(state, views, index)
        state.drop(MOMENTS)

    def _further(
        self, colors: Tensor, cameras: Cameras, domain: Domain, generator: torch.Generator
    ) -> Tensor:
        """Pictures `[V, 3, H, W]` of another domain of the views whose colours are there."""
        # Each beside the one it belongs to, for a prior that sees less than all of them looks at them in this order;
        # every second camera first, so that it sees all sides.
        order = torch.cat([torch.arange(0, len(cameras), 2), torch.arange(1, len(cameras), 2)])
        pairs = order.repeat_interleave(2).to(colors.device)
        given = torch.arange(2, device=colors.device).repeat(len(cameras)) == 0
        names: list[Domain] = ["color", domain]
        drawn = self.prior.sample(
            cameras[pairs],
            generator,
            init_images=colors[pairs],
            domains=names * len(cameras),
            fixed=given,
        )
        return drawn[~given][order.argsort().to(colors.device)]

    def _prepare_field(self, state: State, views: Views, index: int) -> None:
        config = self.config
        if config.carves(index):
            field = self.representation.begin(self.device).level(index)
            assert isinstance(field, Field)
            field.carve(views, tolerance=config.hull_tolerance)
        else:
            field = self._field(state).level(index)
        field.refresh()
        field.save(state)

    def _cameras(self, state: State, index: int, generator: torch.Generator) -> Cameras:
        """Sets of cameras evenly around the object, each set turned against all before it."""
        config = self.config
        groups = 1 if index == 0 else config.groups
        first = 0 if index == 0 else 1 + (index - 1) * groups
        if index == 0:
            state["reconstruct/turn"] = torch.rand(1, generator=generator, device=generator.device).cpu()
        azimuths, elevations = [], []
        for group in range(first, first + groups):
            # Steps of the golden ratio fall between all earlier azimuths, however many rounds there are.
            turn = float(state["reconstruct/turn"]) + group * _GOLDEN
            azimuths += [(turn + view) * 360.0 / config.group_size for view in range(config.group_size)]
            elevations += [config.elevations_deg[group % len(config.elevations_deg)]] * config.group_size
        return orbit(azimuths, elevations, fovy_deg=config.fovy_deg)
