"""Words to a grid of views (views.png), one object a row: what the multiview prior believes before there is any 3D."""

from __future__ import annotations

import torch

from diffusion.backbone import Backbone
from diffusion.facts import BackboneFacts
from diffusion.samplers import make_scheduler, plan_timesteps, sample_views
from experiments.run.backbones import announce_left_out, load_into
from experiments.run.images import grid, save_png
from experiments.run.provenance import describe_text
from experiments.run.run import Run
from experiments.tasks.configs.sample import Config
from gen3d.cameras import ring
from gen3d.limits import check_unused


def validate(config: Config) -> None:
    """Find out what the backbone cannot do."""
    facts = config.backbone.facts()
    if facts is not None:
        check_backbone(config, facts)


def check_backbone(config: Config, facts: BackboneFacts) -> None:
    """Refuse, with a ValueError, directions that the backbone would not be told of, and more steps than it has."""
    if not facts.has_camera:
        why = f"backbone is {facts.name}, which takes no cameras"
        check_unused("sample", config, ["azimuth_deg", "elevation_deg"], why)
    plan_timesteps(make_scheduler(facts.scheduler), config.sampling.num_steps)


def run(config: Config, run: Run) -> None:
    """Sample the views and write the grid."""
    backbone = load_into(run, config.backbone)
    check_backbone(config, backbone.facts)
    run.generated_by_ai = True
    run.inputs["prompt"] = describe_text(config.prompt)
    run.inputs["negative_prompt"] = describe_text(config.negative_prompt)
    announce_left_out(
        run,
        backbone,
        prompt=backbone.shorten(config.prompt)[1],
        negative_prompt=backbone.shorten(config.negative_prompt)[1],
    )
    with run.phase("sample", config.sampling.num_steps):
        views = sample_views(
            backbone,
            [config.prompt] * config.num_objects,
            _cameras(config, backbone),
            generator=run.generator("sample"),
            guidance_scale=config.sampling.guidance_scale,
            guidance_rescale=config.sampling.guidance_rescale,
            num_steps=config.sampling.num_steps,
            negative_prompt=config.negative_prompt,
            callback=lambda at: run.display.update(at.step + 1, {}),
        )
    with run.phase("write"):
        if backbone.image_encoder is not None:
            similarity = backbone.image_text_similarity(views.flatten(0, 1), [config.prompt])
            run.metrics["image_text_similarity"] = round(float(similarity.mean()), 4)
        save_png(grid(views), run.artefact("views.png", kind="image"))


def _cameras(config: Config, backbone: Backbone) -> torch.Tensor | None:
    """[B, V, 4, 4] on an orbit, or None for a backbone that knows no cameras."""
    if not backbone.has_camera:
        return None
    cameras = ring(backbone.num_views, azimuth_deg=config.azimuth_deg, elevation_deg=config.elevation_deg)
    return cameras.c2w.expand(config.num_objects, -1, -1, -1)
