"""Is there a face on the back of a head (the Janus problem)?

The rig knows where eyes and mouth lie on the true head, at (x, y, z), so a second face would have them at (x, y, -z).
A camera behind a two-faced head sees there what a camera in front of the true head sees: the true front's pictures of
both eyes and the mouth are templates, looked for at the landmarks in the unlit picture from behind. Unlit, because
shading must not pass for features, and by correlation of colours, because hair may be as white as an eye.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.benchmark.truth import Truth
from experiments.world.captions import parse
from experiments.world.heads import HeadSpec, landmarks
from gen3d.asset import Mesh
from gen3d.cameras import orbit
from gen3d.color import srgb_to_linear
from gen3d.render.shading import render_mesh

_SIZE = 192
_BACKGROUND = (0.5, 0.5, 0.5)
# Half width and half height of the templates in world units: an eye with some lid and brow, the lips.
_EYE, _MOUTH = (0.15, 0.12), (0.20, 0.09)
# How far a feature may lie from where the rig has it, in world units.
_REACH = 0.10
# Colour varies by at least this much (standard deviation, linear) where there is a feature at all.
_LEAST_CONTRAST = 0.03
# A face has two of its three features at this correlation or more. True fronts have 1, true backs below 0.4.
_THRESHOLD = 0.5


def face_at(side: Literal["front", "back"], mesh: Mesh, truth: Truth) -> bool:
    """Whether `mesh` shows the face of the true head on that side. `truth` must be a head's."""
    evidence = face_evidence(side, mesh, truth)
    return bool(evidence.sort().values[1] >= _THRESHOLD)


def face_evidence(side: Literal["front", "back"], mesh: Mesh, truth: Truth) -> Tensor:
    """[3] highest correlation with the true left eye, right eye and mouth, found near their places."""
    spec = parse(truth.caption)
    if not isinstance(spec, HeadSpec):
        raise ValueError(f"only heads have a face, the caption is {truth.caption!r}")
    camera = orbit(0.0, 0.0)
    template = _unlit(truth.mesh, 0.0)
    picture = _unlit(mesh, 0.0 if side == "front" else 180.0)
    marks = landmarks(spec)
    mouth = 0.5 * (marks["lip_top_inner"] + marks["lip_bottom_inner"])
    found = []
    for point, extent in ((marks["eye_left"], _EYE), (marks["eye_right"], _EYE), (mouth, _MOUTH)):
        position, depth = camera.project(point[None])
        column, row = ((position[0, 0] + 1.0) * (_SIZE / 2)).tolist()
        # Element (1, 1) of the projection is the focal length in half pictures.
        scale = float(camera.projection()[0, 1, 1] / depth[0, 0]) * _SIZE / 2
        found.append(_best_correlation(template, picture, (row, column), extent, scale))
    return torch.stack(found)


def _unlit(mesh: Mesh, azimuth_deg: float) -> Tensor:
    """[3, S, S] linear base colours from one side."""
    with torch.no_grad():
        camera = orbit(azimuth_deg, 0.0)
        images = render_mesh(
            mesh, camera, _SIZE, _SIZE, background=_BACKGROUND, supersample=2, mode="albedo"
        ).images
    return srgb_to_linear(images[0].cpu())


def _best_correlation(
    template: Tensor, picture: Tensor, centre: tuple[float, float], extent: tuple[float, float], scale: float
) -> Tensor:
    """Highest normalised correlation in [-1, 1] of a template cut around `centre` (row, column), slid over the picture.

    extent: half width and half height in world units; scale: pixels in a world unit.
    """
    half_width, half_height = (max(round(side * scale), 2) for side in extent)
    reach = round(_REACH * scale)
    row, column = round(centre[0]), round(centre[1])

    def cut(image: Tensor, more: int) -> Tensor:
        top, left = row - half_height - more, column - half_width - more
        return image[:, top : row + half_height + more + 1, left : column + half_width + more + 1]

    wanted = cut(template, 0)
    wanted = wanted - wanted.mean(dim=(1, 2), keepdim=True)
    height, width = wanted.shape[1:]
    windows = F.unfold(cut(picture, reach)[None], (height, width))[0].view(3, height * width, -1)
    windows = windows - windows.mean(dim=1, keepdim=True)
    norm = windows.square().sum(dim=(0, 1)).sqrt()
    product = (windows * wanted.reshape(3, -1, 1)).sum(dim=(0, 1))
    least = _LEAST_CONTRAST * (3 * height * width) ** 0.5
    return (product / (norm * wanted.norm()).clamp_min(1e-9) * (norm >= least)).max()
