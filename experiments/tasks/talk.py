"""A portrait and a recording to a video of the portrait speaking: talk.mp4, with the recording as its sound."""

from __future__ import annotations

import time

from avatar.face import FaceError, MediaPipeDetector, find_face
from avatar.pipeline import TalkingClip
from avatar.portrait import PortraitError, load_portrait
from experiments.errors import UserError
from experiments.run.backbones import load_into
from experiments.run.provenance import describe_file
from experiments.run.run import Run
from experiments.run.spool import as_typed, spooled
from experiments.speaking import Sitter, beside_backbone, listen, load_talking, write_talk
from experiments.tasks.configs.talk import Config

inputs = beside_backbone


def validate(config: Config) -> None:
    """Read both inputs before anything is written."""
    listen(config.audio)
    _look(config)


def run(config: Config, run: Run) -> None:
    """Animate the portrait and write the video."""
    sound, sitter = listen(config.audio), _look(config)
    run.inputs["portrait"] = describe_file(spooled(config.portrait))
    run.inputs["audio"] = describe_file(spooled(config.audio))
    backbone = load_into(run, config.backbone)
    model = load_talking(backbone, config.talking, config.animate)
    made, began = 0, time.monotonic()

    def on_clip(clip: TalkingClip) -> None:
        nonlocal made
        made += len(clip.images)
        run.log(clip.start + len(clip.images), {"frames_per_second": made / (time.monotonic() - began)})
        if (clip.index + 1) % config.checkpoint_every == 0:
            run.save(clip.index + 1, {"past": clip.past})

    write_talk(config, run, backbone, model, sitter, sound, max_size=config.max_size, on_clip=on_clip)
    run.metrics["frames_per_second"] = round(made / (time.monotonic() - began), 2)


def _look(config: Config) -> Sitter:
    try:
        detector = None if config.face_model is None else MediaPipeDetector(spooled(config.face_model))
    except FaceError as error:
        raise UserError(f"face_model: {error}") from None
    try:
        picture = load_portrait(spooled(config.portrait))
        box = find_face(picture, face=config.face, face_box=config.face_box, detector=detector)
        return Sitter(picture=picture, box=box)
    except (PortraitError, FaceError) as error:
        raise UserError(f"portrait: {as_typed(str(error), config.portrait)}") from None
