"""Settings of `experiments.tasks.talk`."""

from __future__ import annotations

from dataclasses import dataclass, field

from avatar.settings import FaceChoice
from experiments.run.settings import FilePath
from experiments.tasks.configs.speaking import SpeakSettings


@dataclass(frozen=True, kw_only=True)
class Config(SpeakSettings):
    """portrait: a picture with a face.

    face: which face, if there are several; "center" looks for none. face_box: x, y of the top left corner and side, in
        pixels of the picture, instead.
    face_model: a `blaze_face_*.tflite` file, with which MediaPipe finds the face; None finds it without MediaPipe.
    max_size: longer side of a video that shows the whole picture, in pixels; a larger picture is scaled down in it.
        None keeps its size.
    """

    portrait: FilePath
    face: FaceChoice = "auto"
    face_box: tuple[float, float, float] | None = field(default=None, metadata={"form": "[x,y,size]"})
    face_model: FilePath | None = None
    max_size: int | None = 1280

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_size is not None and not 64 <= self.max_size <= 16_384:
            raise ValueError(f"max_size is {self.max_size}; it must lie in 64 ... 16384 pixels, or be null")
