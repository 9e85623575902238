"""Rounds of sampling views and fitting a volume to them.

Round one samples the views of one object from noise. Every later round renders the volume from new cameras, lets the
model improve these pictures (noised to a timestep and denoised, SDEdit), and fits the volume to the result. A volume
can only show pictures that agree with each other, so disagreements between views die out over the rounds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion.backbone import Backbone, Conditioning
from diffusion.samplers import sample_views
from gen3d.cameras import Cameras, orbit
from gen3d.prompts import say, view_prompts
from gen3d.render.volume import render_views
from gen3d.representations.config import VolumeConfig
from gen3d.representations.hull import fill_hull
from gen3d.stages.config import MultiviewConfig, SamplingConfig
from gen3d.stages.fit import fit_step, load_volume, save_volume
from gen3d.stages.views import ViewProvider, Views
from gen3d.state import State

_GOLDEN = 0.6180339887


class BackboneViews:
    """Views from a diffusion backbone, in sets of ``config.joint_views`` where it is a multiview one with cameras, else
    of as many as it makes at once. Sets see each other's content only through ``init_images``.
    """

    def __init__(self, backbone: Backbone, prompt: str, config: SamplingConfig | None = None) -> None:
        self.backbone = backbone
        self.config = config or SamplingConfig()
        self.prompt = say(
            prompt, backbone.shorten, background=self.config.background, num_views=backbone.num_views
        ).text
        self.conditioning: Conditioning = backbone.encode_prompt([self.prompt])

    def __call__(
        self,
        cameras: Cameras,
        init_images: Tensor | None,
        start_timestep: int | None,
        generator: torch.Generator,
    ) -> Tensor:
        num_views = self.backbone.num_views
        if len(cameras) % num_views:
            raise ValueError(
                f"backbone {self.backbone.name!r} makes {num_views} views at once, got {len(cameras)}"
            )
        together = self._views_together(len(cameras))
        groups = len(cameras) // together
        if init_images is not None:
            init_images = init_images.view(groups, together, *init_images.shape[1:])
        images = sample_views(
            self.backbone,
            self._conditioning(cameras),
            cameras.c2w.view(groups, together, 4, 4) if self.backbone.has_camera else None,
            generator=generator,
            guidance_scale=self.config.guidance_scale,
            guidance_rescale=self.config.guidance_rescale,
            num_steps=self.config.num_steps,
            negative_prompt=self.config.negative_prompt,
            init_images=init_images,
            start_timestep=start_timestep,
        )
        return images.flatten(0, 1).float()

    def _views_together(self, count: int) -> int:
        """The largest set up to ``joint_views`` that ``count`` views, a multiple of the backbone's own, fill evenly."""
        own = self.backbone.num_views
        if own == 1 or not self.backbone.has_camera:
            return own
        sets = [size for size in range(own, self.config.joint_views + 1, own) if count % size == 0]
        return max(sets, default=own)

    def _conditioning(self, cameras: Cameras) -> Conditioning:
        """A backbone that makes one view at a time is told in words which one."""
        if self.backbone.num_views > 1:
            return self.conditioning
        towards = torch.nn.functional.normalize(cameras.positions, dim=-1)
        azimuths = torch.rad2deg(torch.atan2(towards[:, 0], towards[:, 2])).tolist()
        elevations = torch.rad2deg(torch.asin(towards[:, 1])).tolist()
        return self.backbone.encode_prompt(view_prompts(self.prompt, azimuths, elevations))


class MultiviewReconstruction:
    """The stage of these rounds; leaves ``volume/...`` and the last ``views/...`` in the state. One step is one batch
    of rays; views are made in the first step of each round."""

    name = "reconstruct"

    def __init__(
        self, config: MultiviewConfig, provider: ViewProvider, device: torch.device | str = "cpu"
    ) -> None:
        self.config, self.provider, self.device = config, provider, device

    @property
    def num_steps(self) -> int:
        return self.config.num_rounds * self.config.steps_per_round

    def start(self, state: State, generator: torch.Generator) -> None:
        for group in ("volume", "views", "adam"):
            state.drop(group)

    def step(self, state: State, step: int, generator: torch.Generator) -> dict[str, float]:
        config = self.config
        round_index, within = divmod(step, config.steps_per_round)
        if within == 0:
            self._begin_round(state, round_index, generator)
        # The rate falls over all rounds: a late round has little left to change, and as large a first step of Adam
        # as an early one's would roughen every surface anew.
        metrics = fit_step(state, config.fit, step, self.num_steps, generator)
        return {**metrics, "round": float(round_index)}

    def _begin_round(self, state: State, index: int, generator: torch.Generator) -> None:
        config = self.config
        cameras = self._cameras(state, index, generator).to(self.device)
        if index == 0:
            images = self.provider(cameras, None, None, generator)
        else:
            volume = load_volume(state)
            volume.refresh()
            background = state["views/backgrounds"][-1]
            shown, _ = render_views(volume, cameras, config.render_size, config.render_size, background)
            images = self.provider(cameras, shown, config.timesteps[index - 1], generator)
        new = Views.from_images(images, cameras, threshold=config.mask_threshold)
        if not bool((new.masks > 0.5).any()):
            raise ValueError(
                "the sampled views show nothing but background, so there is nothing to reconstruct; "
                "try another seed, a colour that differs more from the background, or a lower mask_threshold"
            )
        views = new if index == 0 else Views.cat([Views.load(state), new])
        first = config.group_size
        sizes = [first] + [first * config.groups] * index
        views = views[-sum(sizes[-config.keep_rounds :]) :]
        views.save(state)
        self._prepare_volume(state, views, index)
        state.drop("adam")

    def _prepare_volume(self, state: State, views: Views, index: int) -> None:
        config = self.config
        resolution = config.resolutions[min(index, len(config.resolutions) - 1)]
        if index < config.hull_rounds:
            initial = VolumeConfig(
                resolution=resolution,
                density_scale=config.volume.density_scale,
                blob_radius=config.volume.blob_radius,
                blob_strength=config.volume.blob_strength,
            )
            volume = initial.build(self.device)
            fill_hull(volume, views.images, views.masks, views.cameras, tolerance=config.hull_tolerance)
            save_volume(state, volume)
        elif load_volume(state).resolution != resolution:
            save_volume(state, load_volume(state).upsample(resolution))
        volume = load_volume(state)
        volume.refresh(dilate=1)
        state["volume/cell_density"] = volume.cell_density

    def _cameras(self, state: State, index: int, generator: torch.Generator) -> Cameras:
        """Sets of cameras evenly around the object, each set turned against all before it."""
        config = self.config
        groups = 1 if index == 0 else config.groups
        first = 0 if index == 0 else 1 + (index - 1) * groups
        if index == 0:
            state["multiview/turn"] = torch.rand(1, generator=generator, device=generator.device).cpu()
        azimuths, elevations = [], []
        for group in range(first, first + groups):
            # Steps of the golden ratio fall between all earlier azimuths, however many rounds there are.
            turn = float(state["multiview/turn"]) + group * _GOLDEN
            azimuths += [(turn + view) * 360.0 / config.group_size for view in range(config.group_size)]
            elevations += [config.elevations_deg[group % len(config.elevations_deg)]] * config.group_size
        return orbit(azimuths, elevations, fovy_deg=config.fovy_deg)
