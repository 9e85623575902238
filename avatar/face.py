"""The one face a portrait is about: found, chosen or given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from torch import Tensor

from avatar.face_box import FaceBox, FaceError, face_box_of
from avatar.face_detect import BlazeDetector, Detector, MediaPipeDetector, SearchConfig
from avatar.settings import FaceChoice

__all__ = [
    "MIN_FACE", "BlazeDetector", "Detector", "FaceBox", "FaceChoice", "FaceError", "MediaPipeDetector",
    "SearchConfig", "face_box_of", "find_face",
]  # fmt: skip

MIN_FACE = 32.0
"""Shortest side of a usable face box, pixels."""


# A face in the middle of a portrait fills about this share of the shorter side.
_CENTER_SHARE = 0.65


def find_face(
    image: Tensor,
    *,
    face: FaceChoice = "auto",
    face_box: Sequence[float] | FaceBox | None = None,
    detector: Detector | None = None,
) -> FaceBox:
    """The face box of a portrait [3, H, W], at least 32 pixels a side and inside the picture.

    Args:
        face: "auto" wants exactly one face; "largest" takes the largest of several, "best" the one the detector is
            surest of; "center" looks for none and takes a square of 0.65 shorter sides in the middle.
        face_box: x, y of the top left corner and side, in pixels; then nothing is searched for.
        detector: what looks for faces; None for the embedded `BlazeDetector`.

    Raises:
        FaceError: no face, several with "auto", or one that is too small or leaves the picture; the message lists
            what was found and which settings help.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image must be [3, H, W], got {list(image.shape)}")
    if face not in get_args(FaceChoice):
        raise ValueError(f"face must be one of {', '.join(get_args(FaceChoice))}, got {face!r}")
    height, width = image.shape[1:]
    if face_box is not None:
        return _checked(_given(face_box), width, height, "face_box")
    if face == "center":
        size = _CENTER_SHARE * min(width, height)
        return _checked(FaceBox((width - size) / 2, (height - size) / 2, size), width, height, "the middle")
    found = (detector or BlazeDetector())(image)
    if not found:
        raise FaceError(
            f"no face was found in the picture of {width} x {height} pixels; where it shows one, say where with "
            "face_box=[x,y,size], or use face=center for a face that fills the middle of the picture"
        )
    if face == "auto" and len(found) > 1:
        raise FaceError(
            f"{len(found)} faces were found, at [x,y,size] = {', '.join(map(str, found))}; use face=largest for the "
            "largest, or name one with face_box=[x,y,size]"
        )
    box = max(found, key=lambda b: b.size) if face == "largest" else found[0]
    return _checked(_pushed_inside(box, width, height), width, height, "the face found")


def _given(values: Sequence[float] | FaceBox) -> FaceBox:
    if isinstance(values, FaceBox):
        return values
    try:
        x, y, size = (float(value) for value in values)
        return FaceBox(x, y, size)
    except (TypeError, ValueError) as error:
        raise FaceError(
            f"face_box must be [x,y,size]: the top left corner and the side (above 0) of a square in pixels, "
            f"got {values!r}"
        ) from error


def _checked(box: FaceBox, width: int, height: int, name: str) -> FaceBox:
    if box.size < MIN_FACE:
        raise FaceError(
            f"{name} is too small: {box} is {box.size:.0f} pixels a side in a picture of {width} x {height}; at "
            f"least {MIN_FACE:.0f} are needed: use a larger picture, or face_box=[x,y,size] if that is not the face"
        )
    if not box.inside(width, height):
        raise FaceError(
            f"{name}, [x,y,size] = {box}, leaves the picture of {width} x {height} pixels; give a square inside it "
            "with face_box=[x,y,size]"
        )
    return box


def _pushed_inside(box: FaceBox, width: int, height: int) -> FaceBox:
    """A detector's box may leave the picture by a little; one that leaves it by more is for the check."""
    slack = 0.1 * box.size
    x, y = min(max(box.x, 0.0), width - box.size), min(max(box.y, 0.0), height - box.size)
    if abs(x - box.x) <= slack and abs(y - box.y) <= slack:
        return FaceBox(x, y, box.size)
    return box
