"""Finding faces: BlazeFace over tiles of the picture, each face then measured by MediaPipe's face mesh.

Both networks come with the package. The mesh tells where eyes and mouth are, from which the box follows, and whether
there is a face at all: what looks like one from afar only is left out. MediaPipe itself is asked where it is wanted.
"""

from __future__ import annotations

import importlib
import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from avatar import blaze_face, face_landmarks
from avatar.face_box import FaceBox, FaceError, face_box_of
from diffusion.limits import check_least, check_range
from video.pixels import to_uint8

_BATCH = 8  # tiles looked at together: their maps stay in a processor's cache
_MESH_MARGIN = 1.5  # side of the square that the mesh sees in sides of BlazeFace's box
_LOOKS = 3  # of the mesh at a face, each about what the one before saw
_HOPELESS = 0.2  # where the first look is less sure, there is no second
_SETTLED = 0.7  # overlap of the last two looks' boxes, and of the last one with where a face is known to be
_MEASURED = 16  # candidates among tiles of one size, at most
_CLEAR = 0.125  # sides of a tile that the largest face fills where smaller tiles need not be looked at


class Detector(Protocol):
    """Finds the faces of a picture."""

    def __call__(self, image: Tensor) -> list[FaceBox]:
        """[3, H, W] sRGB in [0, 1] -> the faces' boxes in its pixels, best first; empty where there is none."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """How a picture is searched.

    sure: how sure BlazeFace is of a face times how sure the mesh is of it, at least; 0 to 1.
    smallest_tile: pixels. The whole picture is looked at first, then tiles of half the side, and so on until a face
        fills an eighth of a tile's side or tiles would be smaller than this.
    relative: a face is left out when its side is less than this share of the largest one's.
    """

    sure: float = 0.5
    smallest_tile: int = 128
    relative: float = 0.4

    def __post_init__(self) -> None:
        check_range(self, 0, 1, "sure", "relative")
        check_least(self, 32, "smallest_tile")


class BlazeDetector:
    """The embedded default; the same picture gives the same boxes.

    expected: where a face is known to be, as of a figure whose place is known: what BlazeFace sees there counts
        however unsure the mesh is, which blurred faces leave in doubt.
    """

    def __init__(self, config: SearchConfig | None = None, *, expected: FaceBox | None = None) -> None:
        self.config, self.expected = config or SearchConfig(), expected
        self._blaze = blaze_face.load_blaze_face()
        self._mesh = face_landmarks.load_face_landmarks()

    def __call__(self, image: Tensor) -> list[FaceBox]:
        image, found = image.detach().float().cpu(), []
        for side in _tile_sides(image, self.config.smallest_tile):
            candidates = merge_candidates(*self._candidates(image, side))[:_MEASURED]
            measured = (self._measure(image, sure, points) for sure, points in candidates)
            found = _apart([*found, *(box for box in measured if box is not None)])
            # Among small faces there may be others, and larger ones, that such large tiles do not show.
            if any(box.size >= _CLEAR * side for box in found):
                break
        least = self.config.relative * max((box.size for box in found), default=0.0)
        return [box for box in found if box.size >= least]

    def _candidates(self, image: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """What BlazeFace sees in tiles of this side: how sure [N], and points [N, 8, 2] in the picture's pixels."""
        tiles, corners, scale = _tiles(image, side)
        sure, points = [], []
        for some, places in zip(tiles.split(_BATCH), corners.split(_BATCH), strict=True):
            scores, seen = self._blaze.look(some)
            hits = scores >= self.config.sure
            sure.append(scores[hits])
            points.append(((seen + places[:, None, None]) / scale)[hits])
        return torch.cat(sure), torch.cat(points)

    def _measure(self, image: Tensor, blaze: float, points: Tensor) -> FaceBox | None:
        """The box by eyes and mouth of a candidate [8, 2]; None where the mesh sees no face, or each time another."""
        low, high, right, left = points[:4]
        along, boxes, sure = left - right, [], 0.0
        for _ in range(_LOOKS):
            side = _MESH_MARGIN * float((high - low).max())
            square, matrix = _upright(image, (low + high) / 2, side, along)
            mesh, looks_so = self._mesh.look(square)
            sure = max(sure, float(looks_so))
            if sure < _HOPELESS and self.expected is None:
                return None
            mesh = _placed(mesh[0], matrix)
            eyes, mouth = face_landmarks.eyes_and_mouth(mesh)
            boxes.append(face_box_of(eyes, mouth))
            low, high, along = mesh.amin(dim=0), mesh.amax(dim=0), eyes[1] - eyes[0]
        as_expected = self.expected is not None and boxes[-1].overlap(self.expected) >= _SETTLED
        settled = boxes[-1].overlap(boxes[-2]) >= _SETTLED
        return boxes[-1] if settled and (as_expected or blaze * sure >= self.config.sure) else None


class MediaPipeDetector:
    """Google's face detectors by MediaPipe's Tasks API.

    model_path: a `blaze_face_*.tflite` file, which MediaPipe's pages offer.

    Raises:
        FaceError: mediapipe is not installed, or the file is missing or no such model.
    """

    def __init__(self, model_path: str | Path, *, confidence: float = 0.5) -> None:
        path = Path(model_path)
        if not path.is_file():
            raise FaceError(
                f"there is no MediaPipe face model {path}; download a blaze_face .tflite file and name it here, "
                "or leave the detector at its default"
            )
        self._mediapipe = _import_mediapipe()
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceDetectorOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(path)), min_detection_confidence=confidence
        )
        try:
            self._detector = tasks.vision.FaceDetector.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:
            raise FaceError(
                f"MediaPipe cannot use {path} ({error}); download a blaze_face .tflite file and name it here"
            ) from error
        # It has threads, which must end before the interpreter takes mediapipe apart.
        weakref.finalize(self, self._detector.close)

    def __call__(self, image: Tensor) -> list[FaceBox]:
        pixels = to_uint8(image.cpu()).permute(1, 2, 0).contiguous()
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=pixels.numpy())
        found = self._detector.detect(picture).detections
        found = sorted(found, key=lambda detection: -detection.categories[0].score)
        height, width = image.shape[1:]
        return [_box_of_keypoints(detection.keypoints, width, height) for detection in found]


def merge_candidates(sure: Tensor, points: Tensor) -> list[tuple[float, Tensor]]:
    """Candidates [N] and [N, 8, 2] -> how sure and the points [8, 2] of each face, the surest first.

    As BlazeFace's paper has it: candidates whose boxes overlap by more than 0.3 (intersection over union) with the
    surest one are that face, at their mean, weighted by how sure they are; what is left is grouped in the same way.
    """
    order = torch.sort(sure, descending=True, stable=True).indices
    sure, points = sure[order], points[order]
    faces = []
    while len(sure):
        near = _overlap(points[0], points) > 0.3
        near[0] = True
        weights = sure[near, None, None]
        faces.append((float(sure[0]), (weights * points[near]).sum(dim=0) / weights.sum()))
        sure, points = sure[~near], points[~near]
    return faces


def _overlap(one: Tensor, others: Tensor) -> Tensor:
    """[N] intersection over union of the boxes of points [8, 2] and [N, 8, 2]."""
    low, high = torch.maximum(one[0], others[:, 0]), torch.minimum(one[1], others[:, 1])
    shared = (high - low).clamp(min=0.0).prod(dim=1)
    areas = (others[:, 1] - others[:, 0]).prod(dim=1) + (one[1] - one[0]).prod()
    return shared / (areas - shared)


def _apart(boxes: Sequence[FaceBox]) -> list[FaceBox]:
    """Without boxes that lie by half in one before them: other tiles show the same face."""
    kept: list[FaceBox] = []
    for box in boxes:
        if all(box.shared(other) <= 0.5 * min(box.size, other.size) ** 2 for other in kept):
            kept.append(box)
    return kept


def _tile_sides(image: Tensor, smallest: int) -> Iterator[int]:
    """The longer side, then its half, and so on down to `smallest`; a long strip's sides begin with the shorter."""
    side = max(image.shape[1:])
    yield side
    side = min((side + 1) // 2, *image.shape[1:])
    while side >= smallest:
        yield side
        side = (side + 1) // 2


def _tiles(image: Tensor, side: int) -> tuple[Tensor, Tensor, float]:
    """Tiles of this side that overlap by half, [N, 3, 128, 128], their corners [N, 2] x, y, and by how much the
    picture was scaled for both; black lies where a tile is larger than the picture."""
    n = blaze_face.SIDE
    scale = n / side
    height, width = (max(round(length * scale), 1) for length in image.shape[1:])
    small = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]
    small = F.pad(small, (0, max(n - width, 0), 0, max(n - height, 0)))
    rows, columns = (_starts(length, n) for length in small.shape[1:])
    tiles = torch.stack([small[:, y : y + n, x : x + n] for y in rows for x in columns])
    return tiles, torch.tensor([(x, y) for y in rows for x in columns], dtype=torch.float32), scale


def _starts(length: int, n: int) -> list[int]:
    """Where tiles of n pixels begin that cover a length and overlap by half at least."""
    steps = math.ceil((length - n) / (n / 2))
    return [round(i * (length - n) / max(steps, 1)) for i in range(steps + 1)]


def _upright(image: Tensor, middle: Tensor, side: float, along: Tensor) -> tuple[Tensor, Tensor]:
    """A square of the picture as the mesh sees it, [1, 3, 192, 192], `along` [2] being its rows' direction, and the
    matrix [2, 3] from its pixels to the picture's; black lies beyond the picture."""
    n = face_landmarks.SIDE
    ahead = along / torch.linalg.vector_norm(along).clamp(min=1e-6)
    axes = torch.stack([ahead, torch.stack([-ahead[1], ahead[0]])], dim=1) * (side / n)
    matrix = torch.cat([axes, (middle - axes @ torch.tensor([n / 2, n / 2]))[:, None]], dim=1)
    part, left, top = _part(image, middle, side)
    # Sampling reads single pixels: a large face is made small first, or it would alias.
    shrunk = min(n / side, 1.0)
    size = [max(round(length * shrunk), 1) for length in part.shape[1:]]
    small = F.interpolate(part[None], size, mode="bilinear", antialias=True) if shrunk < 1.0 else part[None]
    places = torch.arange(n) + 0.5
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1)
    within = (_placed(grid, matrix) - torch.tensor([left, top])) / torch.tensor(
        [part.shape[2], part.shape[1]]
    )
    return F.grid_sample(small, within[None] * 2.0 - 1.0, align_corners=False), matrix


def _part(image: Tensor, middle: Tensor, side: float) -> tuple[Tensor, int, int]:
    """What of the picture a square of any direction about `middle` reaches, and its left and top."""
    reach = 0.75 * side + 2.0
    left, top = ((middle - reach).floor().int().clamp(min=0)).tolist()
    right, bottom = ((middle + reach).ceil().int()).tolist()
    left, top = min(left, image.shape[2] - 1), min(top, image.shape[1] - 1)
    return image[:, top : max(bottom, top + 1), left : max(right, left + 1)], left, top


def _placed(points: Tensor, matrix: Tensor) -> Tensor:
    """[..., 2] through a matrix [2, 3]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def _box_of_keypoints(keypoints: Sequence[Any], width: int, height: int) -> FaceBox:
    """BlazeFace's points are right eye, left eye, nose, mouth and ears, in shares of the picture."""
    points = torch.tensor([[point.x * width, point.y * height] for point in keypoints[:4]])
    return face_box_of(points[:2], points[3])


def _import_mediapipe() -> Any:
    try:
        return importlib.import_module("mediapipe")
    except ImportError as error:
        raise FaceError(
            "MediaPipeDetector needs the package mediapipe: run 'pip install mediapipe', or leave the detector at "
            "its default"
        ) from error
