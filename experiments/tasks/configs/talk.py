"""Settings of `experiments.tasks.talk`."""

from __future__ import annotations

from dataclasses import dataclass

from avatar.settings import FaceChoice
from experiments.run.settings import FilePath
from experiments.tasks.configs.speaking import SpeakSettings


@dataclass(frozen=True, kw_only=True)
class Config(SpeakSettings):
    """portrait: a picture with a face.

    face: which face, if there are several; "center" looks for none. face_box: x, y of the top left corner and side, in
        pixels of the picture, instead.
    face_model: a `blaze_face_*.tflite` file, with which MediaPipe finds the face; None finds it without MediaPipe.
    """

    portrait: FilePath
    face: FaceChoice = "auto"
    face_box: tuple[float, ...] | None = None
    face_model: FilePath | None = None
