"""Words to a figure that speaks: text to 3D, a portrait of the mesh from the front, and the portrait made to talk."""

from __future__ import annotations

import torch

from avatar.face import BlazeDetector, FaceError, find_face
from avatar.portrait import load_portrait
from experiments.errors import UserError
from experiments.portraits import portrait_camera, usual_face
from experiments.run.backbones import load_into
from experiments.run.images import save_png
from experiments.run.provenance import describe_file
from experiments.run.run import Run
from experiments.run.spool import spooled
from experiments.speaking import Sitter, beside_backbone, listen, load_talking, write_talk
from experiments.tasks import text_to_3d
from experiments.tasks.configs.text_to_talk import Config
from gen3d.asset import Mesh
from gen3d.render.renderer import renderer
from gen3d.render.shading import render_mesh

inputs = beside_backbone


def validate(config: Config) -> None:
    """Read the recording, and check the caption if the world's own views are wanted, before anything is made."""
    listen(config.audio)
    text_to_3d.validate(config)


def run(config: Config, run: Run) -> None:
    """Make the mesh and everything about it, then the portrait, then the video."""
    sound = listen(config.audio)
    run.inputs["audio"] = describe_file(spooled(config.audio))
    backbone = load_into(run, config.backbone)
    model = load_talking(backbone, config.talking, config.animate)  # before minutes are spent on the mesh
    mesh = text_to_3d.make_and_write(config, run, backbone)
    with run.phase("portrait"):
        path = run.artefact("portrait.png", kind="image")
        with renderer(config.renderer):
            save_png(portrait_of(mesh, config.portrait_size, config.background), path)
        # From the file, so that what speaks is what the file shows.
        picture = load_portrait(path)
        sitter = _sitter(config, run, picture)
    write_talk(config, run, backbone, model, sitter, sound)


def portrait_of(mesh: Mesh, size: int, background: tuple[float, float, float]) -> torch.Tensor:
    """The mesh before the portrait camera of the talking world, [3, size, size] sRGB in [0, 1]."""
    with torch.no_grad():
        return render_mesh(mesh, portrait_camera(), size, size, background=background, supersample=2).images[
            0
        ]


def _sitter(config: Config, run: Run, picture: torch.Tensor) -> Sitter:
    usual = usual_face(picture.shape[-1])
    try:
        detector = BlazeDetector(expected=usual)
        return Sitter(picture=picture, box=find_face(picture, face=config.face, detector=detector))
    except FaceError as error:
        if config.face == "auto":
            raise UserError(f"portrait.png: {error}") from None
        run.note("no face was found in the portrait; the usual place of a bust's face is taken")
        return Sitter(picture=picture, box=usual)
