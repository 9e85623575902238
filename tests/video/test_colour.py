"""Colours as a browser shows them: from the planes and the tags of the file, by a reading of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from video.colour import to_yuv420p
from video.decode import decode, read_frames
from video.encode import encode

COLOURS = (
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255),
    (0, 0, 0), (255, 255, 255), (128, 128, 128), (224, 172, 140), (92, 60, 44), (20, 90, 160),
)  # fmt: skip
LUMA_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114)}  # red's and blue's, by matrix
SIZES = [(16, 16), (256, 512), (576, 720), (718, 64), (720, 1280), (1080, 64), (2048, 32)]


def flat(height: int, width: int) -> Iterator[torch.Tensor]:
    for colour in COLOURS:
        yield (torch.tensor(colour) / 255)[:, None, None].expand(3, height, width)


def shown(frame: av.VideoFrame) -> np.ndarray:
    """[H, W, 3] in 0 ... 255: by the tags; without them BT.601 below 720 rows, BT.709 from there on."""
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
        planes.append(rows[:, : plane.width].astype(np.float64))
    full = frame.color_range == 2
    luma = planes[0] / 255 if full else (planes[0] - 16) / 219
    blue, red = ((plane.repeat(2, 0).repeat(2, 1) - 128) / (255 if full else 224) for plane in planes[1:])
    kr, kb = LUMA_WEIGHTS[frame.colorspace if frame.colorspace != 2 else 6 if frame.height < 720 else 1]
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return 255 * np.stack([r, g, b], axis=-1).clip(0, 1)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_browser_shows_the_colours_that_were_written(tmp_path: Path, size: tuple[int, int]) -> None:
    encode(flat(*size), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        frames = list(container.decode(video=0))
    for colour, frame in zip(COLOURS, frames, strict=True):
        assert np.abs(shown(frame) - colour).max() <= 2.5, colour
    for colour, frame in zip(COLOURS, read_frames(tmp_path / "a.mp4"), strict=True):
        assert np.abs(255 * frame.permute(1, 2, 0).numpy() - colour).max() <= 3, colour


@pytest.mark.parametrize("size", [(32, 48), (720, 1280)], ids=str)
def test_stream_and_container_both_say_how_colours_are_coded(tmp_path: Path, size: tuple[int, int]) -> None:
    encode([torch.zeros(3, *size)], tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    # Primaries, transfer and matrix, 16 bits each, and a bit that is set for the full range.
    assert content[content.index(b"colr") + 4 :].startswith(b"nclx" + b"\0\1" * 3 + b"\0")
    # With the container's word made unreadable, what the H.264 stream itself says is left.
    (tmp_path / "b.mp4").write_bytes(content.replace(b"colrnclx", b"freenclx"))
    for name in ("a.mp4", "b.mp4"):
        with av.open(str(tmp_path / name)) as container:
            context = container.streams.video[0].codec_context
            next(container.decode(video=0))
            tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert tags == (1, 1, 1, 1)


def test_pixels_are_rounded_to_the_nearest_level_and_chroma_is_the_mean_of_four() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 24))
    picture = to_yuv420p(torch.from_numpy(pixels) / 255.0)
    r, g, b = pixels / 255
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    mean = [(each - luma).reshape(8, 2, 12, 2).mean((1, 3)) for each in (b, r)]
    expected = [16 + 219 * luma, 128 + 224 * mean[0] / 1.8556, 128 + 224 * mean[1] / 1.5748]
    for plane, truth in zip(picture.planes, expected, strict=True):
        rows = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        assert np.abs(rows - truth).max() <= 0.51


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("rows", "tag", "coded"), [(64, 2, 6), (718, 2, 6), (720, 2, 1), (1080, 2, 1), (64, 1, 1), (720, 6, 6), (720, 5, 5)]
)  # fmt: skip
def test_files_of_others_are_read_by_their_tags_and_else_by_their_height(
    tmp_path: Path, rows: int, tag: int, coded: int, full: bool
) -> None:
    colour, (kr, kb) = (200, 60, 30), LUMA_WEIGHTS[coded]
    r, g, b = (each / 255 for each in colour)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    scale, offset = (255, 0) if full else (219, 16)
    chroma = 255 if full else 224
    values = (
        offset + scale * luma,
        128 + chroma * (b - luma) / (2 - 2 * kb),
        128 + chroma * (r - luma) / (2 - 2 * kr),
    )
    planes = [np.full(rows * 64 // (1 if i == 0 else 4), round(v), np.uint8) for i, v in enumerate(values)]
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, rows, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, 2 if full else 0
        packed = np.concatenate(planes).reshape(rows * 3 // 2, 64)
        frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
        frame.colorspace, frame.color_range = tag, 2 if full else 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = 255 * decode(tmp_path / "a.mp4").frames[0].permute(1, 2, 0).numpy()
    assert np.abs(found - colour).max() <= 3


@pytest.mark.parametrize(("codec", "pixels"), [("mjpeg", "yuvj420p"), ("ffv1", "bgr0"), ("ffv1", "gray")])
def test_kinds_of_pixels_that_are_full_range_by_themselves(tmp_path: Path, codec: str, pixels: str) -> None:
    colour = (180, 180, 180) if pixels == "gray" else (200, 60, 30)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), colour, np.uint8), format="rgb24")
        container.mux(stream.encode(frame.reformat(format=pixels)))
        container.mux(stream.encode())
    found = 255 * decode(tmp_path / "a.mkv").frames[0].permute(1, 2, 0).numpy()
    assert np.abs(found - colour).max() <= 3
