"""The two networks that find and measure faces, against MediaPipe's own files run by Google's interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
import torch
from safetensors.torch import load_file
from torch import Tensor

from avatar.blaze_face import WEIGHTS, anchors, load_blaze_face, same
from avatar.face_landmarks import eyes_and_mouth, load_face_landmarks

# Of the interpreter of ai-edge-litert 2.x on mediapipe 0.10.21's files, for the pictures below.
_GOLDEN = load_file(Path(__file__).parent / "golden" / "mediapipe.safetensors")


def _pictures(*pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255.0


def test_blaze_face_has_the_interpreters_numbers() -> None:
    images = _pictures(skimage.data.astronaut()[::4, ::4], skimage.data.chelsea()[:256:2, 100:356:2])
    with torch.no_grad():
        scores, boxes = load_blaze_face()(images * 2.0 - 1.0)
    torch.testing.assert_close(scores, _GOLDEN["scores"], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(boxes[:, ::8], _GOLDEN["boxes_every_8th"], atol=1e-3, rtol=1e-4)


def test_the_mesh_has_the_interpreters_numbers() -> None:
    images = _pictures(skimage.data.astronaut()[20:212, 130:322], skimage.data.chelsea()[60:252, 100:292])
    with torch.no_grad():
        points, presence = load_face_landmarks()(images)
    torch.testing.assert_close(points, _GOLDEN["mesh"], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(presence, _GOLDEN["presence"], atol=1e-3, rtol=1e-4)
    _, sure = load_face_landmarks().look(images)
    assert sure[0] > 0.99
    assert sure[1] < 0.2


def test_both_see_the_astronauts_eyes_and_mouth() -> None:
    # Measured by eye: his right and left eye, and the mouth.
    marked = torch.tensor([[203.3, 100.8], [247.5, 103.3], [224.0, 146.7]])
    sure, points = load_blaze_face().look(_pictures(skimage.data.astronaut()[::4, ::4]))
    best = points[0, sure[0].argmax()] * 4.0
    assert (best[[2, 3, 5]] - marked).abs().max() < 8.0
    mesh, _ = load_face_landmarks().look(_pictures(skimage.data.astronaut()[20:212, 130:322]))
    eyes, mouth = eyes_and_mouth(mesh[0] + torch.tensor([130.0, 20.0]))
    assert (torch.cat([eyes, mouth[None]]) - marked).abs().max() < 3.0


def test_anchors_lie_in_the_middles_of_their_places() -> None:
    assert anchors().shape == (896, 2)
    assert anchors()[[0, 1, 2, 512, 895]].tolist() == [[4, 4], [4, 4], [12, 4], [8, 8], [120, 120]]


def test_padding_puts_the_odd_pixel_right_and_below() -> None:
    assert same(torch.ones(1, 1, 2, 2), 3, 2)[0, 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert same(torch.ones(1, 1, 1, 1), 3, 1)[0, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_weights_lie_beside_their_licence() -> None:
    names = {file.name for file in WEIGHTS.iterdir()}
    assert {"README.md", "LICENSE", "NOTICE"} <= names
    assert sum(file.stat().st_size for file in WEIGHTS.glob("*.safetensors")) < 2_000_000
