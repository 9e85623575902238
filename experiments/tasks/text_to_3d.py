"""Words to a textured mesh: the stages of a recipe, then files, pictures and a turntable."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from diffusion.backbone import Backbone
from experiments.errors import UserError
from experiments.priors.config import TruthConfig
from experiments.run import folder as folders
from experiments.run.backbones import announce_left_out, load_into
from experiments.run.images import grid, save_png
from experiments.run.provenance import describe_text, version
from experiments.run.run import Run
from experiments.tasks.configs.text_to_3d import Config
from experiments.turntable import write_preview, write_turntable, write_views
from experiments.world import scene_from_caption
from files.atomic import write_bytes
from gen3d.asset import Mesh
from gen3d.cameras import ring
from gen3d.export import export_asset
from gen3d.mesh_files import load_mesh_file
from gen3d.mesh_state import load_mesh
from gen3d.meshing import is_watertight, num_components, with_normals
from gen3d.metrics import psnr
from gen3d.optimize import Progress, Stage, optimize, steps_of
from gen3d.placing import into_unit_sphere
from gen3d.priors.base import Request
from gen3d.priors.text import TextPrior
from gen3d.recipe import build_stages, check_backbone, made_by_model
from gen3d.render.renderer import renderer
from gen3d.render.shading import render_mesh
from gen3d.representations.base import GROUP, load
from gen3d.stages.base import Given
from gen3d.state import State
from gen3d.views import Views

# Of so many, all of one set, some are shown.
_LAST_VIEWS = 8
_COMPARED = 128  # pixels of the pictures by which the mesh is compared with the representation
# What `export_asset` writes, and what each file is.
_KINDS = dict.fromkeys((".glb", ".obj", ".ply", ".stl"), "mesh") | {".mtl": "material", ".png": "texture"}


def validate(config: Config) -> None:
    """Find out what the backbone cannot do, whether the world knows the caption, if its pictures are wanted, and
    whether the mesh to begin with is closed."""
    facts = config.backbone.facts()
    if facts is not None:
        check_backbone(config.recipe, config.chosen, facts)
    if isinstance(config.prior, TruthConfig):
        try:
            scene_from_caption(config.prompt)
        except ValueError as error:
            raise UserError(f"prompt: prior=truth needs a caption of the procedural world: {error}") from None
    if config.init_mesh is not None:
        try:
            _read_closed(config.init_mesh)
        except ValueError as error:
            raise UserError(f"init_mesh: {error}") from None


def run(config: Config, run: Run) -> None:
    """Make the mesh and write everything."""
    backbone = load_into(run, config.backbone)
    make_and_write(config, run, backbone)


def make_and_write(config: Config, run: Run, backbone: Backbone) -> Mesh:
    """Make the mesh, write its files, pictures and turntable, and return it, on the CPU with normals."""
    run.inputs["prompt"] = describe_text(config.prompt)
    run.inputs["negative_prompt"] = describe_text(config.negative_prompt)
    given = given_to(config, backbone)
    stages = build_stages(config.recipe, given)
    _announce(config, run, given)
    run.generated_by_ai = made_by_model(config.recipe, config.chosen)
    with renderer(config.renderer):
        state = _optimize(config, run, stages)
        mesh = with_normals(load_mesh(state).detach().to("cpu"))
        _write_samples(run, state)
        _write_representation(config, run, state, mesh)
        _write(config, run, backbone, mesh)
    return mesh


def given_to(config: Config, backbone: Backbone) -> Given:
    """What the stages are built with."""
    request = Request(backbone=backbone, prompt=config.prompt, negative_prompt=config.negative_prompt)
    mesh = None if config.init_mesh is None else _read_closed(config.init_mesh)
    return Given(chosen=config.chosen, request=request, device=backbone.device, init_mesh=mesh)


def _read_closed(file: str) -> Mesh:
    """A mesh to begin with, in the unit sphere. ValueError for one that is not closed."""
    mesh, _ = into_unit_sphere(load_mesh_file(file))
    if not is_watertight(mesh):
        raise ValueError(f"{Path(file).name} is not closed, so it has no inside; close its holes first")
    return mesh


def _announce(config: Config, run: Run, given: Given) -> None:
    """Say what no model takes part in, and what of the words a model does not read."""
    if not made_by_model(config.recipe, config.chosen):
        run.note("the views are the procedural world's own: no model takes part in the mesh")
    prior, backbone = given.prior(), given.request.backbone
    if isinstance(prior, TextPrior):
        if backbone.num_views == 1 and prior.config.joint_views > 1:
            run.note(
                f"backbone {backbone.name!r} makes one view at a time: each is drawn alone, and words say which it is, "
                "as with prior.joint_views=1"
            )
        rest = backbone.shorten(config.negative_prompt)[1]
        announce_left_out(run, backbone, prompt=prior.said.left_out, negative_prompt=rest)


def _write_samples(run: Run, state: State) -> None:
    """Up to four of the last pictures that the mesh was made from, in a row; none where it was made from none."""
    if not Views.are_in(state):
        return
    images = Views.load(state).images[-_LAST_VIEWS:]
    images = images[:: max(1, len(images) // 4)][:4].cpu()
    save_png(grid(images[None]), run.artefact("samples.png", kind="image"))


def _write_representation(config: Config, run: Run, state: State, mesh: Mesh) -> None:
    """The files that the representation has of its own, and how well the mesh looks like it: the PSNR of the mesh's
    base colour to its pictures, over white, from four sides."""
    if not state.group(GROUP):
        return
    with run.phase("compare"):
        representation = load(config.representation, state)
        for name, data in representation.files().items():
            write_bytes(run.artefact(name, kind="representation"), data)
        cameras = ring(4)
        with torch.no_grad():
            white = torch.ones(len(cameras), 3, device=representation.device)
            theirs = representation.render_rgb(cameras, _COMPARED, white).images.cpu()
            ours = render_mesh(mesh, cameras, _COMPARED, _COMPARED, supersample=2, mode="albedo").images
        run.metrics["psnr_to_representation_db"] = _decibel(psnr(ours, theirs))


def _optimize(config: Config, run: Run, stages: list[Stage]) -> State:
    """The loop, with its progress shown and its checkpoints kept."""
    resume = None
    if run.resumed is not None:
        resume = (run.resumed.tensors, run.resumed.metadata)
    index = int(run.resumed.metadata["stage_index"]) if run.resumed else 0
    if index < len(stages):
        done = int(run.resumed.metadata["step"]) if run.resumed else 0
        run.begin_phase(stages[index].name, steps_of(stages[index]), done)

    def on_step(progress: Progress) -> None:
        run.log(progress.step, progress.metrics)
        if progress.step == progress.stage_steps and progress.stage_index + 1 < len(stages):
            # At once, so that what a stage prepares before its first step counts as its own time.
            following = stages[progress.stage_index + 1]
            run.begin_phase(following.name, steps_of(following))

    state = optimize(
        stages,
        State(),
        generator=run.generator("optimize"),
        on_step=on_step,
        save=run.save,
        checkpoint_every=config.checkpoint_every,
        resume=resume,
    )
    run.end_phase()
    return state


def _write(config: Config, run: Run, backbone: Backbone, mesh: Mesh) -> None:
    with run.phase("export"):
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
    with run.phase("pictures"):
        write_preview(mesh, run.artefact("preview.png", kind="image"), config.turntable)
        views = write_views(mesh, run.artefact("views.png", kind="image"), config.turntable)
        if backbone.image_encoder is not None:
            with torch.no_grad():
                similarity = backbone.image_text_similarity(views.to(backbone.device), [config.prompt])
            run.metrics["image_text_similarity"] = round(float(similarity.mean()), 4)
    with run.phase("turntable"):
        write_turntable(
            mesh, run.artefact("turntable.mp4", kind="video"), config.turntable, run.media_tags(config.prompt)
        )


def _decibel(value: float) -> float | None:
    """A PSNR for the report; identical pictures have an infinite one, which JSON cannot say."""
    return round(value, 2) if math.isfinite(value) else None
