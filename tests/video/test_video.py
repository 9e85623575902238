from __future__ import annotations

from pathlib import Path

import pytest
import torch

from video.compose import side_by_side
from video.config import EncodeConfig
from video.decode import decode
from video.encode import encode


def moving_bar(frames: int = 6, height: int = 32, width: int = 48) -> torch.Tensor:
    """A white bar moving right by 8 pixels a frame, with smooth colours behind it: [F, 3, H, W]."""
    ramp = torch.linspace(0.2, 0.8, width).expand(height, width)
    clip = torch.stack([ramp, ramp.flip(1), torch.full_like(ramp, 0.4)]).repeat(frames, 1, 1, 1)
    for index in range(frames):
        clip[index, :, :, 8 * index : 8 * index + 8] = 1.0
    return clip


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def test_frames_come_back(tmp_path: Path) -> None:
    clip = moving_bar()
    assert encode(clip, tmp_path / "a.mp4", config=EncodeConfig(fps=25, crf=10)) == len(clip)
    back = decode(tmp_path / "a.mp4")
    assert back.frames.shape == clip.shape
    assert back.fps == 25
    assert back.seconds == pytest.approx(6 / 25)
    for index in range(len(clip)):
        assert psnr(back.frames[index], clip[index]) > 27  # 4:2:0 colour costs a little at the bar's edges
    # Frame order: each frame is nearest to its own source.
    distances = (back.frames[:, None] - clip[None]).square().mean((2, 3, 4))
    assert distances.argmin(1).tolist() == list(range(len(clip)))


def test_file_is_playable_from_the_start_and_yuv420p(tmp_path: Path) -> None:
    import av

    encode(moving_bar(), tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_equal_frames_give_equal_bytes_and_metadata_comes_back(tmp_path: Path) -> None:
    tags = {"comment": 'Galatea; prompt="a red, shiny \u00fc car"; seed=0'}
    encode(moving_bar(), tmp_path / "a.mp4", metadata=tags)
    encode(iter(moving_bar()), tmp_path / "b.mp4", metadata=tags)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert decode(tmp_path / "a.mp4").metadata["comment"] == tags["comment"]


@pytest.mark.parametrize("size", [(31, 48), (32, 47), (1, 1)])
def test_odd_sizes_are_refused_before_anything_is_written(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="even width and height"):
        encode(torch.zeros(2, 3, *size), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_frame_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    encode(moving_bar(), tmp_path / "a.mp4")
    before = (tmp_path / "a.mp4").read_bytes()
    broken = moving_bar()
    broken[3, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        encode(broken, tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="frame 1 has shape"):
        encode([torch.zeros(3, 32, 32), torch.zeros(3, 32, 34)], tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == before


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "empty"),
        (torch.zeros(2, 4, 8, 8), r"\[3, H, W\]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "float"),
    ],
)
def test_wrong_frames(tmp_path: Path, frames: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(frames, tmp_path / "a.mp4")


def test_one_frame_of_the_smallest_size(tmp_path: Path) -> None:
    encode(torch.full((1, 3, 16, 16), 0.5), tmp_path / "a.mp4")
    assert decode(tmp_path / "a.mp4").frames.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\0\0\0\x18ftypisom"])
def test_decode_of_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mp4"):
        decode(tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "absent.mp4")


def test_a_truncated_video_is_an_error(tmp_path: Path) -> None:
    encode(moving_bar(), tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(content[: len(content) // 4])
    with pytest.raises(ValueError, match=r"b\.mp4"):
        decode(tmp_path / "b.mp4")


def test_config_limits() -> None:
    with pytest.raises(ValueError, match="fps"):
        EncodeConfig(fps=0)
    with pytest.raises(ValueError, match="crf"):
        EncodeConfig(crf=52)


def test_side_by_side() -> None:
    left, right = torch.zeros(2, 3, 4, 6), torch.full((2, 3, 4, 2), 0.5)
    both = side_by_side([left, right], gap=2)
    assert both.shape == (2, 3, 4, 10)
    assert both[:, :, :, :6].eq(0).all()
    assert both[:, :, :, 6:8].eq(1).all()
    assert both[:, :, :, 8:].eq(0.5).all()
    with pytest.raises(ValueError, match="agree"):
        side_by_side([left, torch.zeros(3, 3, 4, 6)])
    with pytest.raises(ValueError, match="empty"):
        side_by_side([])
