"""Reading mouths and telling lips that fit from lips that do not: shapes, and small trainings that must succeed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from avatar.mouth import MouthReader, MouthReaderConfig, mouth_region
from avatar.syncnet import WINDOW, SyncNet, contrast, sync_score, windows_of


def _mouths(openings: torch.Tensor, size: int = 32) -> torch.Tensor:
    """Dark ellipses as high as the opening says, somewhere on skin."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    centre = 0.2 * torch.randn(len(openings), 1, 1, generator=generator)
    radius = (x / 0.6).square() + ((y - centre) / (4 * openings.view(-1, 1, 1) + 0.02)).square()
    return torch.where(radius < 1, 0.15, 0.8)[:, None].expand(-1, 3, -1, -1)


def test_a_reader_learns_to_read() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reader = MouthReader(MouthReaderConfig(size=32, channels=(8, 16, 24)))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=5e-3)
    for _ in range(60):
        openings = 0.15 * torch.rand(32, generator=generator)
        loss = (reader(_mouths(openings)) - openings).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    openings = torch.linspace(0, 0.15, 40)
    with torch.no_grad():
        assert float((reader(_mouths(openings)) - openings).abs().mean()) < 0.015


def test_the_region_stays_within_the_picture() -> None:
    frames = torch.rand(2, 3, 40, 60)
    assert torch.equal(mouth_region(frames, (30.0, 20.0), 10), frames[:, :, 15:25, 25:35])
    assert torch.equal(mouth_region(frames, (0.0, 39.0), 10), frames[:, :, 30:40, 0:10])
    assert mouth_region(frames, (30.0, 20.0), 100).shape == (2, 3, 40, 40)


def test_late_lips_are_found_late() -> None:
    vectors = F.normalize(torch.randn(80, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    for late in (-4, 0, 6):
        score = sync_score(vectors[20 - late : 60 - late], vectors[20:60])
        assert score.offset == late
        assert score.distance == pytest.approx(0.0, abs=1e-3)
        assert score.confidence > 1.0
    other = F.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    assert sync_score(other, vectors[20:60]).confidence < 0.3
    with pytest.raises(ValueError, match="too short"):
        sync_score(vectors[:10], vectors[:10])


def test_towers_meet() -> None:
    """Lips that open with the loudness of the sound, learned in a few steps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SyncNet()
    generator = torch.Generator().manual_seed(0)

    def moments(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        opening = 0.15 * torch.rand(count, WINDOW, generator=generator)
        lips = _mouths(opening.flatten()).unflatten(0, (count, WINDOW))
        sound = (20 * opening[..., None, None] - 1.5).expand(-1, -1, 4, 80)
        return lips, sound + 0.3 * torch.randn(count, WINDOW, 4, 80, generator=generator)

    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(25):
        lips, sound = moments(24)
        loss = contrast(net.embed_lips(lips), net.embed_sound(sound), torch.tensor(10.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        lips, sound = moments(24)
        similar = net.embed_lips(lips) @ net.embed_sound(sound).T
    assert float((similar.argmax(1) == torch.arange(24)).float().mean()) > 0.3


def test_windows() -> None:
    windows = windows_of(torch.arange(7.0)[:, None])
    assert windows[..., 0].tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]
    with pytest.raises(ValueError, match="fewer"):
        windows_of(torch.zeros(4, 1))
    with pytest.raises(ValueError, match="windows of lips"):
        SyncNet().embed_lips(torch.zeros(1, 4, 3, 8, 8))
