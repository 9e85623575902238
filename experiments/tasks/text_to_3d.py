"""Words to a textured mesh: the stages of `gen3d.pipeline`, then files, pictures and a turntable."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch

from diffusion.backbone import Backbone
from experiments.benchmark.truth import TrueViews
from experiments.errors import UserError
from experiments.run import folder as folders
from experiments.run.backbones import announce_left_out, load_into
from experiments.run.images import grid, save_png
from experiments.run.provenance import describe_text, version
from experiments.run.run import Run
from experiments.tasks.configs.text_to_3d import Config
from experiments.turntable import write_preview, write_turntable, write_views
from gen3d.asset import Mesh
from gen3d.cameras import ring
from gen3d.export import export_asset
from gen3d.meshing import is_watertight, num_components, with_normals
from gen3d.optimize import Progress, Stage, State, optimize
from gen3d.pipeline import mesh_stages, quickstart_stages
from gen3d.prompts import on_background, say
from gen3d.stages.config import SamplingConfig
from gen3d.stages.mesh import load_mesh
from gen3d.stages.views import Views

# What `export_asset` writes, and what each file is.
_KINDS = {".glb": "mesh", ".obj": "mesh", ".ply": "mesh", ".mtl": "material", ".png": "texture"}


def validate(config: Config) -> None:
    """Find out whether the world knows the caption, if its pictures are wanted."""
    if config.views == "truth":
        try:
            _true_views(config)
        except ValueError as error:
            raise UserError(f"prompt: views=truth needs a caption of the procedural world: {error}") from None


def run(config: Config, run: Run) -> None:
    """Make the mesh and write everything."""
    backbone = load_into(run, config.backbone)
    make_and_write(config, run, backbone)


def make_and_write(config: Config, run: Run, backbone: Backbone) -> Mesh:
    """Make the mesh, write its files, pictures and turntable, and return it, on the CPU with normals."""
    run.inputs["prompt"] = describe_text(config.prompt)
    run.inputs["negative_prompt"] = describe_text(config.negative_prompt)
    recipe = config.recipe
    if config.negative_prompt:
        recipe = replace(recipe, sampling=replace(recipe.sampling, negative_prompt=config.negative_prompt))
    if config.views == "truth":
        run.note("the views are the procedural world's own: no model takes part in the mesh")
        stages = mesh_stages(recipe, _true_views(config), backbone.device)
    else:
        stages = quickstart_stages(recipe, backbone, config.prompt)
        _announce_left_out(config, run, backbone, recipe.sampling)
        run.generated_by_ai = True
    state = _optimize(config, run, stages)
    mesh = with_normals(load_mesh(state).detach().to("cpu"))
    _write_samples(run, state, recipe.multiview.group_size)
    _write(config, run, backbone, mesh)
    return mesh


def _announce_left_out(config: Config, run: Run, backbone: Backbone, sampling: SamplingConfig) -> None:
    said = say(config.prompt, backbone.shorten, background=sampling.background, num_views=backbone.num_views)
    rest = backbone.shorten(sampling.negative_prompt)[1]
    announce_left_out(run, backbone, prompt=said.left_out, negative_prompt=rest)


def _write_samples(run: Run, state: State, count: int) -> None:
    """Up to four of the last `count` pictures that the mesh was made from, evenly spread, in a row."""
    images = Views.load(state).images[-count:]
    images = images[:: max(1, len(images) // 4)][:4].cpu()
    save_png(grid(images[None]), run.artefact("samples.png", kind="image"))


def _true_views(config: Config) -> TrueViews:
    caption = on_background(config.prompt, config.recipe.sampling.background)
    return TrueViews(caption, config.recipe.multiview.render_size)


def _optimize(config: Config, run: Run, stages: list[Stage]) -> State:
    """The loop, with its progress shown and its checkpoints kept."""
    resume = None
    if run.resumed is not None:
        resume = (run.resumed.tensors, run.resumed.metadata)
    index = int(run.resumed.metadata["stage_index"]) if run.resumed else 0
    if index < len(stages):
        done = int(run.resumed.metadata["step"]) if run.resumed else 0
        run.begin_stage(stages[index].name, stages[index].num_steps, done)

    def on_step(progress: Progress) -> None:
        run.log(progress.step, progress.metrics)
        if progress.step == progress.stage_steps and progress.stage_index + 1 < len(stages):
            # At once, so that what a stage prepares before its first step counts as its own time.
            following = stages[progress.stage_index + 1]
            run.begin_stage(following.name, following.num_steps)

    state = optimize(
        stages,
        State(),
        generator=run.generator("optimize"),
        on_step=on_step,
        save=run.save,
        checkpoint_every=config.checkpoint_every,
        resume=resume,
    )
    run.end_stage()
    return state


def _write(config: Config, run: Run, backbone: Backbone, mesh: Mesh) -> None:
    with run.stage("export"):
        extras = {"generator": f"Galatea {version()}", "prompt": config.prompt, "seed": config.seed}
        for suffix, kind in _KINDS.items():  # noted before they are there: a run may be killed in between
            folders.remember(run.folder, artefacts={f"mesh{suffix}": kind})
        exported = export_asset(mesh, run.folder, cameras=ring(4), extras=extras)
        for path in (Path(file) for one in exported.values() for file in one["files"]):
            run.artefact(path.name, kind=_KINDS[path.suffix])
        run.metrics["mesh"] = {
            "vertices": mesh.num_vertices,
            "faces": mesh.num_faces,
            "components": num_components(mesh),
            "watertight": is_watertight(mesh),
        }
        run.metrics["rerender_psnr_db"] = {name: _decibel(one["psnr"]) for name, one in exported.items()}
    with run.stage("pictures"):
        write_preview(mesh, run.artefact("preview.png", kind="image"), config.turntable)
        views = write_views(mesh, run.artefact("views.png", kind="image"), config.turntable)
        if backbone.image_encoder is not None:
            with torch.no_grad():
                similarity = backbone.image_text_similarity(views.to(backbone.device), [config.prompt])
            run.metrics["image_text_similarity"] = round(float(similarity.mean()), 4)
    with run.stage("turntable"):
        write_turntable(
            mesh, run.artefact("turntable.mp4", kind="video"), config.turntable, run.media_tags(config.prompt)
        )


def _decibel(value: float) -> float | None:
    """A PSNR for the report; identical pictures have an infinite one, which JSON cannot say."""
    return round(value, 2) if math.isfinite(value) else None
