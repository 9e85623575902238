"""Finding faces: a cascade of local binary patterns that comes with scikit-image, or MediaPipe where it is installed.

The cascade is OpenCV's (Liao et al., 2007, "Learning multi-scale block local binary patterns for face recognition"):
quick, without weights to fetch, made for faces seen from the front. It is weak on dark skin, on faces turned by more
than some 15 degrees, behind thick frames of glasses and beards; a face box given by hand always works.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import skimage
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from skimage.feature import Cascade
from torch import Tensor

from avatar.face_box import FaceBox, FaceError, face_box_of

_CASCADE = Path(str(skimage.__file__)).parent / "data" / "lbpcascade_frontalface_opencv.xml"
_WINDOW = 24  # pixels of the smallest face the cascade sees


class Detector(Protocol):
    """Finds the faces of a picture."""

    def __call__(self, image: Tensor) -> list[FaceBox]:
        """[3, H, W] sRGB in [0, 1] -> the faces' boxes in its pixels, best first; empty where there is none."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeConfig:
    """How the cascade searches.

    working_side: pixels of the longer side of the picture that is searched; larger finds smaller faces, slower.
    smallest: shortest face searched for, in shorter sides of the picture; where none is found, the search goes on to
        the next. Most of the time goes into small faces.
    weight: a face needs overlapping hits of this weight; a hit weighs its size in shorter sides of the picture. Six
        searches hit a clear face that fills half the picture some forty times, which weighs 20.
    relative: a face is left out when it weighs less than this share of the heaviest.
    """

    working_side: int = 256
    smallest: tuple[float, ...] = (0.15, 0.08)
    weight: float = 2.0
    relative: float = 0.4

    def __post_init__(self) -> None:
        if self.working_side < 2 * _WINDOW:
            raise ValueError(f"working_side must be at least {2 * _WINDOW}, got {self.working_side}")
        if not self.smallest or not all(0.0 < size <= 1.0 for size in self.smallest):
            raise ValueError(f"smallest must be one or more numbers above 0 and up to 1, got {self.smallest}")
        if not self.weight > 0.0:
            raise ValueError(f"weight must be above 0, got {self.weight:g}")
        if not 0.0 <= self.relative <= 1.0:
            raise ValueError(f"relative must lie in [0, 1], got {self.relative:g}")


class CascadeDetector:
    """The embedded default.

    Each picture is searched in brightness, in its red (where skin is light and eyes are dark in most people), and in
    red without detail (which glasses lose most of), each also mirrored; hits are pooled. The same picture gives the
    same boxes.
    """

    def __init__(self, config: CascadeConfig | None = None) -> None:
        self.config = config or CascadeConfig()
        if not _CASCADE.is_file():
            raise FaceError(
                f"scikit-image's file {_CASCADE} is missing: install scikit-image again, or use face_box=[x,y,size]"
            )
        self._cascade = Cascade(str(_CASCADE))

    def __call__(self, image: Tensor) -> list[FaceBox]:
        small, scale = _fit(image, self.config.working_side)
        views, shorter = list(_views(small)), min(small.shape[:2])
        for smallest in self.config.smallest:
            size = max(_WINDOW, round(smallest * shorter))
            hits = np.concatenate([self._search(view, size) for view in views])
            if found := merge_hits(hits, self.config.weight * shorter, self.config.relative):
                return [box.scaled(1.0 / scale) for box in found]
        return []

    def _search(self, view: np.ndarray, smallest: int) -> np.ndarray:
        """[N, 3] float64 x, y, size of all windows that pass in [H, W]; mirrored too, so that no side is favoured."""
        height, width = view.shape
        shorter = min(height, width)
        found = []
        for mirrored in (False, True):
            # A threshold above 1: the cascade's own merging depends on the order of its threads.
            boxes = self._cascade.detect_multi_scale(
                img=np.ascontiguousarray(view[:, ::-1] if mirrored else view),
                scale_factor=1.1,
                step_ratio=1.0,
                min_size=(smallest, smallest),
                max_size=(shorter, shorter),
                min_neighbor_number=1,
                intersection_score_threshold=1.01,
            )
            hits = np.array([(b["c"], b["r"], b["width"]) for b in boxes], np.float64).reshape(-1, 3)
            if mirrored:
                hits[:, 0] = width - hits[:, 0] - hits[:, 2]
            found.append(hits)
        return np.concatenate(found)


class MediaPipeDetector:
    """Google's BlazeFace by MediaPipe's Tasks API; finds turned and partly hidden faces too.

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
        pixels = (image.detach().cpu().clamp(0.0, 1.0) * 255.0).round().byte().permute(1, 2, 0).contiguous()
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=pixels.numpy())
        found = self._detector.detect(picture).detections
        found = sorted(found, key=lambda detection: -detection.categories[0].score)
        height, width = image.shape[1:]
        return [_box_of_keypoints(detection.keypoints, width, height) for detection in found]


def merge_hits(hits: np.ndarray, least: float, relative: float) -> list[FaceBox]:
    """Hits [N, 3] (x, y, size) -> faces, heaviest first; a face weighs the sum of its hits' sizes.

    Hits that overlap by more than 0.4 (intersection over union) with the one of most neighbours become one group,
    whose mean is the face; what is left is grouped in the same way. Groups lighter than `least`, or than `relative`
    times the heaviest, are dropped, and those that lie by half in a heavier one.
    """
    groups: list[tuple[float, FaceBox]] = []
    hits = hits[np.lexsort(hits.T)]
    near = _overlaps(hits) > 0.4
    left = np.ones(len(hits), bool)
    while left.any():
        counts = (near & left).sum(axis=1) * left
        members = near[int(counts.argmax())] & left
        x, y, size = hits[members].mean(axis=0)
        groups.append((float(hits[members, 2].sum()), FaceBox(float(x), float(y), float(size))))
        left &= ~members
    groups.sort(key=lambda group: -group[0])
    kept: list[FaceBox] = []
    for weight, box in groups:
        heavy = weight >= max(least, relative * groups[0][0])
        if heavy and all(box.shared(other) <= 0.5 * min(box.size, other.size) ** 2 for other in kept):
            kept.append(box)
    return kept


def _overlaps(hits: np.ndarray) -> np.ndarray:
    """[N, N] intersection over union."""
    low, size = hits[:, :2], hits[:, 2]
    high = low + size[:, None]
    span = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    shared = np.clip(span, 0.0, None).prod(axis=-1)
    return shared / (size[:, None] ** 2 + size[None] ** 2 - shared)


def _fit(image: Tensor, side: int) -> tuple[np.ndarray, float]:
    """[3, H, W] -> [H', W', 3] float64 whose longer side is `side`, and by how much it was scaled."""
    scale = side / max(image.shape[1:])
    height, width = (max(round(n * scale), 1) for n in image.shape[1:])
    small = F.interpolate(
        image[None].detach().float().cpu(), (height, width), mode="bicubic", antialias=True
    )[0]
    return small.clamp(0.0, 1.0).permute(1, 2, 0).double().numpy(), scale


def _views(rgb: np.ndarray) -> Iterator[np.ndarray]:
    red = rgb[..., 0]
    yield rgb @ np.array([0.299, 0.587, 0.114])
    yield red
    yield gaussian_filter(red, max(rgb.shape) / 64)


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
