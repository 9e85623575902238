from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from avatar.face import (
    BlazeDetector,
    FaceBox,
    FaceError,
    MediaPipeDetector,
    SearchConfig,
    face_box_of,
    find_face,
)
from avatar.face_crop import Crop
from avatar.face_detect import merge_candidates
from experiments.world.heads import Head, HeadSpec, Rig, make_head
from experiments.world.render import Light, render
from experiments.world.scene import scene_from_caption
from experiments.world.sdf import compile_parts
from gen3d.cameras import Cameras, look_at, ring

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


def _sized(image: Tensor, factor: float) -> Tensor:
    return F.interpolate(image[None], scale_factor=factor, mode="bicubic", antialias=True)[0].clamp(0, 1)


def _marked(head: Head, rig: Rig | None = None, camera: Cameras | None = None) -> FaceBox:
    camera, points = camera or _camera(), head.landmarks(rig)
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


def test_the_astronaut_is_found_by_eyes_and_mouth() -> None:
    box = find_face(_astronaut())
    assert box.overlap(_ASTRONAUT) > 0.7
    assert face_box_of(_EYES, _MOUTH).overlap(box) > 0.95


def _with_yaw(yaw: float, pitch: float, roll: float = 0.0) -> Rig:
    return Rig(yaw_deg=yaw, pitch_deg=pitch, roll_deg=roll)


@pytest.mark.parametrize(
    ("spec", "rig"),
    [
        (HeadSpec(gender="woman", hair_style="long"), None),
        (HeadSpec(gender="man", skin="tan"), _with_yaw(15, 0)),
        # A mass of hair about the face, a beard, glasses and a hat: what a face is not.
        (HeadSpec(gender="woman", hair_style="curly", hair_color="red"), _with_yaw(-15, 10)),
        (HeadSpec(gender="man", skin="dark", beard=True, glasses="square", hat="pink"), _with_yaw(5, -10)),
        (HeadSpec(gender="boy", hair_style="mohawk", hair_color="purple"), _with_yaw(-8, 0, 8)),
        (HeadSpec(gender="man", hair_style="bald", beard=True, moustache=True), _with_yaw(0, 15)),
    ],
)
def test_heads_of_the_world_are_found_where_their_landmarks_say(spec: HeadSpec, rig: Rig | None) -> None:
    head = make_head(spec)
    picture, marked = _portrait(head, rig), _marked(head, rig)
    assert find_face(picture).overlap(marked) > 0.8
    assert find_face(_sized(picture, 4.0)).overlap(marked.scaled(4.0)) > 0.8


def test_the_box_holds_a_face_and_not_the_hair_about_it() -> None:
    """Seen from the figure's own cameras the head is smaller, and shoulders are in the picture."""
    head = make_head(HeadSpec(gender="woman", hair_style="curly", hair_color="red"))
    camera = ring(1, azimuth_deg=0.0, elevation_deg=15.0, fovy_deg=40.0)
    over = torch.tensor([[1.0, 1.0, 1.0]])
    picture = render(compile_parts([head.parts()]), camera, 128, over, Light()).images[0, 0]
    assert find_face(_sized(picture, 4.0)).overlap(_marked(head, camera=camera).scaled(4.0)) > 0.8


def test_a_crop_about_a_world_portrait_is_the_whole_picture_nearly() -> None:
    crop = Crop.around(_marked(make_head(HeadSpec(gender="woman", hair_style="long"))))
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


@pytest.mark.parametrize(
    ("spec", "pixels"),
    [
        (HeadSpec(gender="woman", hair_style="curly", hair_color="red"), 6),
        (HeadSpec(gender="man", beard=True, hair_color="black", glasses="round"), 5),
    ],
)
def test_a_blurred_face_is_found_where_one_is_known_to_be(spec: HeadSpec, pixels: int) -> None:
    head = make_head(spec)
    marked = _marked(head)
    blurred = torch.from_numpy(gaussian_filter(_portrait(head).numpy(), (0, pixels, pixels)))
    assert BlazeDetector()(blurred) == []
    assert BlazeDetector(expected=marked)(blurred)[0].overlap(marked) > 0.7
    # Where there is nothing like a face, or it is elsewhere, knowing does not help.
    assert BlazeDetector(expected=marked)(torch.full((3, 128, 128), 0.6)) == []
    assert BlazeDetector(expected=FaceBox(70, 70, 40))(blurred) == []


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_box_scales_with_the_picture(factor: float) -> None:
    image = _astronaut()[:, :300, 100:400]
    assert find_face(_sized(image, factor)).overlap(find_face(image).scaled(factor)) > 0.9


@pytest.mark.parametrize(
    ("width", "height", "at", "side"),
    [
        (4032, 3024, (3100, 1900), 150),  # a telephone's photograph
        (4096, 256, (2700, 30), 200),
        (256, 2048, (10, 1500), 120),
        (1600, 1200, (40, 20), 90),
    ],
)
def test_a_small_face_in_a_large_picture_is_found(
    width: int, height: int, at: tuple[int, int], side: int
) -> None:
    """The astronaut's head, `side` pixels, on a blurred picture of other things."""
    x, y = at
    things = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1) / 255.0
    picture = F.interpolate(things[None], (height, width), mode="bilinear")[0]
    head = _astronaut()[:, 20:220, 120:320]
    picture[:, y : y + side, x : x + side] = _sized(head, side / 200)
    factor = side / 200
    true = face_box_of(_EYES, _MOUTH)
    true = FaceBox((true.x - 120) * factor + x, (true.y - 20) * factor + y, true.size * factor)
    assert find_face(picture).overlap(true) > 0.8


def test_the_same_picture_gives_the_same_boxes() -> None:
    assert BlazeDetector()(_astronaut()) == BlazeDetector()(_astronaut())


def _photograph(name: str) -> Tensor:
    pixels = getattr(skimage.data, name)()
    return torch.from_numpy(pixels[..., :3] if pixels.ndim == 3 else np.stack([pixels] * 3, -1)).permute(
        2, 0, 1
    ) / 255.0  # fmt: skip


@pytest.mark.parametrize("name", ["chelsea", "coffee", "clock", "coins", "page", "moon"])
def test_no_false_faces_in_photographs(name: str) -> None:
    with pytest.raises(FaceError, match="no face was found"):
        find_face(_photograph(name))


@pytest.mark.parametrize(
    "rows", [slice(118, None), slice(108, None), slice(160, None), slice(0, 118), slice(0, 140)]
)
def test_half_a_face_is_refused_and_no_chest_is_taken_for_it(rows: slice) -> None:
    with pytest.raises(FaceError, match=r"no face was found|leaves the picture"):
        find_face(_astronaut()[:, rows])


def test_no_false_faces_in_noise_stripes_and_things() -> None:
    detector = BlazeDetector(SearchConfig(smallest_tile=64))
    for shape in ((3, 64, 64), (3, 40, 400), (3, 1, 1), (3, 3, 300)):
        assert detector(torch.rand(shape, generator=torch.Generator().manual_seed(0))) == []
    for caption in ("a red cube", "a blue mug", "a green tree", "a yellow house"):
        scene = scene_from_caption(caption, seed=0)
        camera = ring(1, azimuth_deg=30.0, elevation_deg=10.0, fovy_deg=40.0)
        assert detector(scene.render(camera, 128).images.reshape(3, 128, 128)) == []


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
    for name, value in (("sure", -0.1), ("smallest_tile", 20), ("relative", 1.5)):
        with pytest.raises(ValueError, match=name):
            SearchConfig(**{name: value})  # type: ignore[arg-type]
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
    generator = torch.Generator().manual_seed(0)

    def seen(x: float, y: float, size: float, count: int) -> Tensor:
        box = torch.tensor([[x, y], [x + size, y + size]], dtype=torch.float32)
        return torch.cat([box, box.mean(0).expand(6, 2)]) + torch.randn(count, 1, 2, generator=generator)

    points = torch.cat([seen(200, 60, 60, 15), seen(50, 60, 80, 20), seen(80, 90, 25, 3)])
    sure = torch.cat([torch.full((15,), 0.8), torch.full((20,), 0.9), torch.full((3,), 0.6)])
    order = torch.randperm(38, generator=generator)
    found = merge_candidates(sure[order], points[order])
    assert [round(score, 2) for score, _ in found] == [0.9, 0.8, 0.6]
    for (_, each), corner in zip(found, ((50, 60), (200, 60), (80, 90)), strict=True):
        assert (each[0] - torch.tensor(corner)).abs().max() < 1.5
    assert merge_candidates(torch.zeros(0), torch.zeros(0, 8, 2)) == []
