"""Steps of score distillation, as a run takes them, beside the bare denoiser; and where the time of a step goes.

Legend: B objects, V views of each, C latent channels, h x w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from diffusion.backbone import Backbone
from diffusion.conditioning import Inputs
from experiments.benchmark.timing import Work, plain
from experiments.tasks.configs.text_to_3d import Config
from gen3d.adam import adam_step
from gen3d.cameras import Cameras
from gen3d.optimize import take_step
from gen3d.priors.base import Request, ScoringPrior
from gen3d.representations.base import load
from gen3d.stages.base import Given
from gen3d.stages.config import DistillConfig
from gen3d.stages.distill import Distill
from gen3d.state import State

STEP, BARE = "step", "denoiser"


@dataclass(kw_only=True)
class Distillation:
    """A run of the stage that distils, of which steps are taken anywhere between its first and its last.

    steps_a_go: consecutive ones, so many that what is done now and then falls into each go as often as it does in a
    run. seen: of each go of `steps`, how many views the network was given.
    """

    fit: Distill
    prior: ScoringPrior
    backbone: Backbone
    generator: torch.Generator
    state: State = field(default_factory=State)
    seen: list[int] = field(default_factory=list)

    @staticmethod
    def of(config: Config, backbone: Backbone) -> Distillation:
        """The one that a run of these settings, which have a loss, would begin with."""
        request = Request(backbone=backbone, prompt=config.prompt, negative_prompt=config.negative_prompt)
        given = Given(chosen=config.chosen, request=request, device=backbone.device)
        stage = next(each for each in config.recipe.values() if isinstance(each, DistillConfig))
        run = Distillation(
            fit=stage.build(given),
            prior=cast(ScoringPrior, given.prior()),
            backbone=backbone,
            generator=torch.Generator().manual_seed(config.seed),
        )
        run.fit.start(run.state, run.generator)
        take_step(run.fit, run.state, 0, run.generator)
        return run

    @property
    def steps_a_go(self) -> int:
        return min(self.fit.config.refresh_every, self.fit.num_steps)

    def cameras(self, progress: float = 0.5) -> Cameras:
        """Those of one step, B V of them."""
        config = self.fit.config
        drawn = config.cameras.draw(
            self.fit.num_objects, self.fit.views_together, progress, torch.Generator().manual_seed(0)
        )
        return drawn.to(self.backbone.device)

    def latents(self) -> Tensor:
        """Noise `[B, V, C, h, w]` in the shape of a step's latents."""
        side = self.backbone.image_size // self.backbone.downscale
        shape = (self.fit.config.num_views // self.prior.num_views, self.prior.num_views)
        noise = torch.randn(
            *shape, self.backbone.latent_channels, side, side, generator=torch.Generator().manual_seed(0)
        )
        return noise.to(self.backbone.device)

    def steps(self, turns: int, passes: Sequence[int]) -> Work:
        """`steps_a_go` steps: those of the first go, which does not count, are the run's first, and those of the
        following `turns` goes are spread evenly over the run. passes: what `counting` gives."""
        last = self.fit.num_steps - self.steps_a_go
        begins = iter([0, *(index * last // max(turns - 1, 1) for index in range(turns))])

        def prepare() -> Callable[[], object]:
            first = next(begins)
            self._reach(first)

            def go() -> None:
                counted = len(passes)
                for step in range(first, first + self.steps_a_go):
                    take_step(self.fit, self.state, step, self.generator)
                self.seen.append(sum(passes[counted:]))

            return go

        return prepare

    @torch.no_grad()
    def _reach(self, step: int) -> None:
        """What the steps left out before `step` would have done to the representation's resolution."""
        part = self.fit.part(step)
        if part:
            milestone = next(each for each in range(step + 1) if self.fit.part(each) == part)
            self.fit.before(self.state, milestone, self.generator)

    def denoising(self) -> Work:
        """As many forward passes of the denoiser alone, each with and without the prompt in one batch, on latents as
        many as those of a step."""
        latents, cameras = self.latents(), self.cameras()
        objects, views = latents.shape[:2]
        c2w = cameras.c2w.view(objects, views, 4, 4) if self.backbone.has_camera else None
        words = self.backbone.encode_prompt(["", "a thing"])
        rows = [words[[index]] for index in range(2)]
        inputs = [Inputs(conditioning=each, camera=c2w).for_objects(objects) for each in rows]
        both, twice = Inputs.cat(inputs), torch.cat([latents, latents])
        timestep = torch.full((len(twice),), self.prior.schedule.num_timesteps // 2, device=latents.device)

        @torch.no_grad()
        def go() -> None:
            for _ in range(self.steps_a_go):
                self.backbone.denoiser(twice, timestep, both)

        return plain(go)

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Within it, the list gets a number for each forward pass of the UNet, or of a copy that a loss trains: how
        many views it had."""
        passes: list[int] = []

        def note(module: nn.Module, given: Sequence[Tensor]) -> None:
            if isinstance(module, type(self.backbone.unet)):
                passes.append(len(given[0]))

        handle = register_module_forward_pre_hook(note)
        try:
            yield passes
        finally:
            handle.remove()

    @property
    def evaluations(self) -> float:
        """Of the network in a step, a condition of all views at a time; a mean over the goes that counted."""
        counted = self.seen[1:]
        return sum(counted) / (len(counted) * self.steps_a_go * self.fit.config.num_views)

    def parts(self) -> dict[str, Work]:
        """What a step of one guidance consists of, each part by itself, once."""
        fit, state, prior, config = self.fit, self.state, self.prior, self.fit.config
        cameras, latents = self.cameras(), self.latents()
        size, step = config.render_size[0], fit.num_steps // 2
        channels = load(fit.representation, state).num_channels
        background = torch.zeros(len(cameras), channels, device=self.backbone.device)
        images = torch.rand(
            len(cameras), 3, prior.image_size, prior.image_size, generator=torch.Generator().manual_seed(0)
        ).to(self.backbone.device)
        timestep = torch.full((len(latents),), prior.schedule.num_timesteps // 2, device=latents.device)
        rates = fit.rates(state, step)

        def learning() -> None:
            for name in rates:
                state[name].requires_grad_(True).grad = None

        def draw() -> Tensor:
            learning()
            drawn = load(fit.representation, state).render(
                cameras, size, background, generator=self.generator
            )
            return drawn.images

        def encode() -> Tensor:
            return prior.encode(images.requires_grad_(True))

        def back(made: Callable[[], Tensor]) -> Work:
            def prepare() -> Callable[[], object]:
                total = made().square().sum()
                return total.backward

            return prepare

        def optimise() -> Callable[[], object]:
            learning()
            for name in rates:
                state[name].grad = torch.zeros_like(state[name])
            for name in rates:
                state[name].requires_grad_(False)
            return lambda: adam_step(state, rates, fit.optimizer)

        conditions = prior.guidance_conditions(cameras)
        encoder: dict[str, Work] = {
            f"encode {len(images)} x {images.shape[-1]} x {images.shape[-1]}": plain(encode),
            "encode, backward": back(encode),
        }
        return {
            f"draw {len(cameras)} views of {size} x {size}": plain(draw),
            "draw, backward": back(draw),
            **({} if fit.latents else encoder),
            "denoiser, its conditions together": plain(
                lambda: prior.predict(latents, timestep, cameras, conditions)
            ),
            "optimiser": optimise,
        }
