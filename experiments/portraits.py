"""How a bust is taken: the camera of portraits, and where the face is in its picture."""

from __future__ import annotations

import math

import torch

from avatar.face import FaceBox
from gen3d.cameras import Cameras, look_at

# Of a bust as the procedural world makes them, in a picture of side 1.
_USUAL_FACE = FaceBox(0.1832808, 0.2640046, 0.6334384)


def portrait_camera(zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Cameras:
    """The camera of talking pictures: in front, level, the head and its hair or hat in the picture.

    zoom: how much larger all is than usual. shift: how far the camera is moved to the right and up, in
    world units.
    """
    x, y = shift[0], 0.17 + shift[1]
    fovy = 2 * math.degrees(math.atan(math.tan(math.radians(26.5 / 2)) / zoom))
    c2w = look_at(torch.tensor([[x, y, 3.2]]), torch.tensor([x, y, 0.0]))
    return Cameras(c2w=c2w, fovy_deg=torch.tensor([fovy]))


def usual_face(size: int) -> FaceBox:
    """Where busts have their face in a portrait of this side, in pixels."""
    return _USUAL_FACE.scaled(size)
