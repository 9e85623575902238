"""Steps of score distillation, as a run takes them, beside the bare denoiser; and where the time of a step goes.

Legend: B objects, V views of each, C latent channels, h x w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

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
    run.
    """

    fit: Distill
    prior: ScoringPrior
    backbone: Backbone
    generator: torch.Generator
    state: State = field(default_factory=State)

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

    def steps(self, turns: int) -> Work:
        """`steps_a_go` steps; `turns` goes are spread evenly over the run, and then begin again."""
        count, last = self.steps_a_go, self.fit.num_steps - self.steps_a_go
        begins = [index * last // max(turns - 1, 1) for index in range(turns)]
        taken = 0

        def prepare() -> Callable[[], object]:
            nonlocal taken
            first = begins[taken % turns]
            taken += 1

            def go() -> None:
                for step in range(first, first + count):
                    take_step(self.fit, self.state, step, self.generator)

            return go

        return prepare

    def denoising(self, passes: list[int]) -> Work:
        """As many forward passes of the denoiser alone, each with and without the prompt in one batch, on latents as
        many as those of a step. Of `counting`, they leave nothing in `passes`."""
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
            counted = len(passes)
            for _ in range(self.steps_a_go):
                self.backbone.denoiser(twice, timestep, both)
            del passes[counted:]

        return plain(go)

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Within it, the list gets a number for each forward pass of the UNet: how many views it had."""
        passes: list[int] = []

        def note(_module: object, given: Sequence[Tensor]) -> None:
            passes.append(len(given[0]))

        handle = self.backbone.unet.register_forward_pre_hook(note)
        try:
            yield passes
        finally:
            handle.remove()

    def evaluations(self, passes: Sequence[int], goes: int) -> float:
        """Of the network in a step, a condition of all views at a time; `passes` are those of so many goes."""
        return sum(passes) / (goes * self.steps_a_go * self.fit.config.num_views)

    def parts(self) -> dict[str, Work]:
        """What a step of one guidance consists of, each part by itself, once."""
        fit, state, prior, config = self.fit, self.state, self.prior, self.fit.config
        cameras, latents = self.cameras(), self.latents()
        size, step = config.render_size[0], fit.num_steps // 2
        background = torch.zeros(len(cameras), 3, device=self.backbone.device)
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

        with torch.no_grad():
            conditions = prior.guidance_conditions(cameras)
        return {
            f"draw {len(cameras)} views of {size} x {size}": plain(draw),
            "draw, backward": back(draw),
            f"encode {len(images)} x {images.shape[-1]} x {images.shape[-1]}": plain(encode),
            "encode, backward": back(encode),
            "denoiser, its conditions together": plain(
                lambda: prior.predict(latents, timestep, cameras, conditions)
            ),
            "optimiser": optimise,
        }
