from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avatar.face import (
    CascadeConfig,
    CascadeDetector,
    FaceBox,
    FaceError,
    MediaPipeDetector,
    face_box_of,
    find_face,
)
from avatar.face_crop import Crop
from avatar.face_detect import merge_hits
from experiments.world.heads import Head, HeadSpec, Rig, make_head
from experiments.world.render import Light, render
from experiments.world.sdf import compile_parts
from gen3d.cameras import Cameras, look_at

# Measured by eye on scikit-image's picture: x, y of his right and left eye and of the mouth.
_ASTRONAUT = FaceBox(175.0, 70.0, 93.0)
_EYES, _MOUTH = torch.tensor([[203.3, 100.8], [247.5, 103.3]]), torch.tensor([224.0, 146.7])


def _astronaut() -> Tensor:
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 255.0


def _camera() -> Cameras:
    """The camera of the world's training portraits."""
    at = torch.tensor([0.0, 0.12, 0.0])
    return Cameras(c2w=look_at(torch.tensor([[0.0, 0.12, 3.2]]), at), fovy_deg=torch.tensor([24.0]))


def _portrait(head: Head, rig: Rig | None = None) -> Tensor:
    over = torch.tensor([[0.83, 0.83, 0.83]])
    return render(compile_parts([head.parts(rig)]), _camera(), 128, over, Light()).images[0, 0]


def _marked(head: Head, rig: Rig | None = None) -> FaceBox:
    camera, points = _camera(), head.landmarks(rig)
    names = ("eye_left", "eye_right", "mouth_left", "mouth_right")
    world = torch.stack([points[name] for name in names])
    seen = world @ camera.w2c[0, :3, :3].T + camera.w2c[0, :3, 3]
    focal = 64.0 / torch.tan(torch.deg2rad(camera.fovy_deg / 2))
    pixels = 64.0 + focal * torch.stack([seen[:, 0], -seen[:, 1]], dim=-1) / -seen[:, 2:]
    return face_box_of(pixels[:2], pixels[2:].mean(dim=0))


class Fixed:
    """A detector that knows the answer."""

    def __init__(self, *boxes: FaceBox) -> None:
        self.boxes = list(boxes)

    def __call__(self, image: Tensor) -> list[FaceBox]:
        return self.boxes


def test_the_cascade_finds_the_astronaut() -> None:
    box = find_face(_astronaut())
    assert box.overlap(_ASTRONAUT) > 0.75
    assert face_box_of(_EYES, _MOUTH).overlap(box) > 0.8


@pytest.mark.parametrize(
    "spec", [HeadSpec(gender="woman", hair_style="long"), HeadSpec(gender="man", skin="tan")]
)
def test_the_cascade_finds_heads_of_the_world_where_their_landmarks_say(spec: HeadSpec) -> None:
    head = make_head(spec)
    box = find_face(_portrait(head))
    marked = _marked(head)
    assert box.overlap(marked) > 0.75
    # The crop about it is the whole picture, nearly.
    crop = Crop.around(marked)
    assert crop.size == pytest.approx(128, abs=10)
    assert abs(crop.x) < 8
    assert abs(crop.y) < 8


def test_the_marked_box_follows_the_head() -> None:
    head = make_head(HeadSpec(gender="boy"))
    still = _marked(head)
    assert still.centre[0] == pytest.approx(64.0, abs=0.1)
    left, right = _marked(head, Rig(yaw_deg=15.0)), _marked(head, Rig(yaw_deg=-15.0))
    assert left.centre[0] - 64.0 == pytest.approx(64.0 - right.centre[0], abs=0.1)
    assert left.centre[0] > 66.0
    assert _marked(head, Rig(pitch_deg=-10.0)).centre[1] > still.centre[1] + 1.0
    assert left.size == pytest.approx(still.size, rel=0.08)


@settings(deadline=None, max_examples=50)
@given(st.floats(-1000, 1000), st.floats(-1000, 1000), st.floats(0.1, 20))
def test_the_marked_box_moves_and_grows_with_its_landmarks(dx: float, dy: float, scale: float) -> None:
    eyes, mouth, shift = _EYES.double(), _MOUTH.double(), torch.tensor([dx, dy], dtype=torch.float64)
    box = face_box_of(eyes, mouth)
    moved = face_box_of(eyes.flip(0) * scale + shift, mouth * scale + shift)
    expected = (box.x * scale + dx, box.y * scale + dy, box.size * scale)
    assert (moved.x, moved.y, moved.size) == pytest.approx(expected, abs=1e-2, rel=1e-4)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_box_scales_with_the_picture(factor: float) -> None:
    image = _astronaut()[:, :300, 100:400]
    sized = torch.nn.functional.interpolate(image[None], scale_factor=factor, mode="bicubic", antialias=True)[
        0
    ]
    assert find_face(sized).overlap(find_face(image).scaled(factor)) > 0.8


def test_no_false_faces() -> None:
    detector = CascadeDetector()
    assert detector(torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1) / 255.0) == []
    detector = CascadeDetector(CascadeConfig(working_side=128))
    for shape in ((3, 64, 64), (3, 40, 400), (3, 1, 1)):
        assert detector(torch.rand(shape, generator=torch.Generator().manual_seed(0))) == []


def test_no_face_names_the_settings() -> None:
    with pytest.raises(
        FaceError, match=r"no face was found.*100 x 80 pixels.*face_box=\[x,y,size\].*face=center"
    ):
        find_face(torch.full((3, 80, 100), 0.5))


def test_several_faces_are_listed_and_can_be_chosen() -> None:
    part = _astronaut()[:, 0:240, 100:360]
    with pytest.raises(
        FaceError, match=r"2 faces were found, at \[x,y,size\] = \[.*\], \[.*\]; use face=largest"
    ):
        find_face(torch.cat([part, part], dim=2))
    image, boxes = torch.zeros(3, 200, 300), (FaceBox(10, 10, 40), FaceBox(100, 50, 90))
    assert find_face(image, face="largest", detector=Fixed(*boxes)) == boxes[1]
    assert find_face(image, face="best", detector=Fixed(*boxes)) == boxes[0]
    assert find_face(image, face_box=(100, 50, 90), detector=Fixed(*boxes)) == boxes[1]


def test_the_middle() -> None:
    box = find_face(torch.zeros(3, 200, 100), face="center", detector=Fixed())
    assert box.centre == (50.0, 100.0)
    assert 40 < box.size < 100


def test_too_small_and_outside() -> None:
    image = torch.zeros(3, 100, 200)
    with pytest.raises(
        FaceError, match=r"the face found is too small: \[5, 5, 20\] is 20 pixels.*at least 32"
    ):
        find_face(image, detector=Fixed(FaceBox(5, 5, 20)))
    with pytest.raises(FaceError, match=r"face_box is too small: \[0, 0, 31\]"):
        find_face(image, face_box=(0, 0, 31.4))
    with pytest.raises(FaceError, match=r"the middle is too small"):
        find_face(torch.zeros(3, 40, 40), face="center")
    for outside in ((150, 10, 60), (-5, 0, 50), (10, 60, 50), (0, 0, 150)):
        with pytest.raises(
            FaceError, match=r"face_box, \[x,y,size\] = .* leaves the picture of 200 x 100 pixels"
        ):
            find_face(image, face_box=outside)
    # A detector's box that is a little outside is moved, by more it is refused.
    assert find_face(image, detector=Fixed(FaceBox(-3, 53, 50))) == FaceBox(0, 50, 50)
    with pytest.raises(FaceError, match="leaves the picture"):
        find_face(image, detector=Fixed(FaceBox(-30, 10, 50)))


@pytest.mark.parametrize(
    "bad", [(1, 2), (1, 2, 3, 4), (1, 2, "x"), (0, 0, 0), (0, 0, -5), (float("nan"), 0, 50), 7]
)
def test_a_bad_box_is_named(bad: object) -> None:
    with pytest.raises(FaceError, match=r"face_box must be \[x,y,size\].*got " + re.escape(repr(bad))):
        find_face(torch.zeros(3, 100, 100), face_box=bad)  # type: ignore[arg-type]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"image must be \[3, H, W\], got \[100, 100\]"):
        find_face(torch.zeros(100, 100))
    with pytest.raises(ValueError, match="face must be one of auto, largest, best, center, got 'left'"):
        find_face(torch.zeros(3, 100, 100), face="left")  # type: ignore[arg-type]
    for name, value in (("working_side", 20), ("smallest", (0.2, 0.0)), ("weight", 0.0), ("relative", 1.5)):
        with pytest.raises(ValueError, match=name):
            CascadeConfig(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size above 0"):
        FaceBox(0, 0, 0)


def test_mediapipe_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FaceError, match=r"there is no MediaPipe face model .*none\.tflite; download"):
        MediaPipeDetector(tmp_path / "none.tflite")
    (tmp_path / "model.tflite").write_bytes(b"model")
    monkeypatch.setitem(sys.modules, "mediapipe", None)  # as if it were not installed
    with pytest.raises(FaceError, match="pip install mediapipe"):
        MediaPipeDetector(tmp_path / "model.tflite")


def test_merging() -> None:
    rng = np.random.default_rng(0)
    large = np.array([50.0, 60.0, 80.0]) + rng.normal(0, 1.5, (20, 3))
    small = np.array([200.0, 60.0, 60.0]) + rng.normal(0, 1.5, (15, 3))
    inner = np.array([80.0, 90.0, 25.0]) + rng.normal(0, 0.5, (12, 3))
    noise = np.array([[150.0, 10.0, 30.0], [160.0, 150.0, 40.0]])
    hits = rng.permutation(np.concatenate([large, small, inner, noise]))
    faces = merge_hits(hits, 200.0, 0.3)
    assert [round(box.size, -1) for box in faces] == [80, 60]
    assert faces[0].overlap(FaceBox(50, 60, 80)) > 0.95
    assert merge_hits(rng.permutation(hits), 200.0, 0.3) == faces
    assert merge_hits(hits, 200.0, 0.9) == faces[:1]
    assert merge_hits(hits, 5000.0, 0.3) == []
    assert merge_hits(np.zeros((0, 3)), 1.0, 0.3) == []


def test_overlap() -> None:
    box = FaceBox(0, 0, 10)
    assert box.overlap(box) == 1.0
    assert box.overlap(FaceBox(10, 0, 5)) == 0.0
    assert box.overlap(FaceBox(5, 0, 10)) == pytest.approx(1 / 3)
    assert str(FaceBox(1.4, 2.6, 30)) == "[1, 3, 30]"
