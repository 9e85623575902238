from __future__ import annotations

from pathlib import Path

import pytest
import torch

from video.compose import CAPTION_HEIGHT, caption, stream_side_by_side
from video.decode import probe
from video.encode import encode


def test_streams_side_by_side_are_read_in_step() -> None:
    read: list[int] = []

    def clip():
        for index in range(3):
            read.append(index)
            yield torch.full((3, 4, 6), index / 4)

    joined = stream_side_by_side([clip(), torch.ones(3, 3, 4, 2)], gap=2, fill=0.5)
    assert read == []
    first = next(joined)
    assert read == [0]
    assert first.shape == (3, 4, 10)
    assert (first[:, :, :6] == 0).all()
    assert (first[:, :, 6:8] == 0.5).all()
    assert (first[:, :, 8:] == 1).all()
    assert len(list(joined)) == 2


def test_captions_stand_above_their_clips(tmp_path: Path) -> None:
    clips = [torch.zeros(4, 3, 64, 64), torch.zeros(4, 3, 64, 96)]
    frames = list(stream_side_by_side(clips, captions=("truth", "result"), gap=4))
    assert frames[0].shape == (3, 64 + CAPTION_HEIGHT, 164)
    head = frames[0][:, :CAPTION_HEIGHT]
    assert (head[:, :, 64:68] == 1).all()
    for words in (head[:, :, :64], head[:, :, 68:]):
        assert 0.02 < (words < 0.5).float().mean() < 0.4
    assert (frames[0][:, CAPTION_HEIGHT:, :64] == 0).all()
    assert not torch.equal(caption("truth", 64), caption("result", 64))
    encode(frames, tmp_path / "a.mp4", fps=25)
    info = probe(tmp_path / "a.mp4")
    assert (info.height, info.width) == (88, 164)


def test_caption_shrinks_before_it_gives_up() -> None:
    dark = caption("truth", 200) < 0.5
    narrow = caption("truth", 30) < 0.5
    assert narrow.any()
    assert narrow.any(dim=1).sum() < dark.any(dim=1).sum()
    with pytest.raises(ValueError, match=r"does not fit into 30 pixels"):
        caption("a long description of a clip", 30)


def test_wrong_streams() -> None:
    clip = torch.zeros(2, 3, 4, 6)
    with pytest.raises(ValueError, match="empty"):
        stream_side_by_side([])
    with pytest.raises(ValueError, match="1 captions for 2 clips"):
        stream_side_by_side([clip, clip], captions=["truth"])
    with pytest.raises(ValueError, match=r"clips \[1\] end after 1 frames"):
        list(stream_side_by_side([clip, clip[:1]]))
    with pytest.raises(ValueError, match="agree"):
        list(stream_side_by_side([clip, torch.zeros(2, 3, 8, 6)]))
