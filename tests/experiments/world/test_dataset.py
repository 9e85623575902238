"""What a data set may hold beside colour pictures: depth, normals, guests and elevations of all sorts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.world.captions import parse
from experiments.world.config import DatasetConfig
from experiments.world.dataset import Group, load_shards, make_dataset, make_group, make_groups
from experiments.world.guests import invite, random_backdrop
from experiments.world.head_spec import HeadSpec
from experiments.world.render import Light
from experiments.world.scene import scene_from_caption
from gen3d.cameras import Cameras, fitting_distance, orbit
from gen3d.domain_pictures import depth_of, depth_picture, normals_of, normals_picture
from video.pixels import from_uint8, to_uint8

PLAIN = DatasetConfig(num_scenes=6, scenes_per_shard=2, size=32, num_views=2)
RICH = replace(PLAIN, domains=True, num_guests=3, mixed_elevations=0.0)
FURTHER = ("depth", "normals", "guests", "guest_masks", "guest_c2w")


def _elevations(c2w: torch.Tensor) -> list[float]:
    return Cameras(c2w=c2w, fovy_deg=torch.full((len(c2w),), 40.0)).angles()[1]


def test_a_plain_set_is_what_it_always_was(tmp_path: Path) -> None:
    """Weights are trained on such sets, and folders of them are continued."""
    groups = [make_group(replace(PLAIN, size=8, num_views=1), index) for index in range(24)]
    said = "\n".join(f"{group.kind}: {group.caption}" for group in groups)
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == "3c3ca4a296039f4a"
    c2w = torch.cat([group.c2w for group in groups])
    assert float(c2w.double().sum()) == pytest.approx(43.7172, abs=1e-3)
    assert all(getattr(groups[0], name) is None for name in FURTHER)
    list(make_dataset(tmp_path, replace(PLAIN, num_scenes=1), workers=1))
    assert list(json.loads((tmp_path / "dataset.json").read_text())) == [
        "num_scenes", "scenes_per_shard", "num_views", "size", "seed", "held_out", "shares", "fovy_deg",
        "elevation_deg",
    ]  # fmt: skip


def test_settings_tell_sets_apart() -> None:
    others = [
        replace(PLAIN, domains=True), replace(PLAIN, num_guests=1), replace(PLAIN, mixed_elevations=0.5),
        replace(PLAIN, shares=(*PLAIN.shares, 0.1)),
    ]  # fmt: skip
    told = [json.dumps(each.settings()) for each in (PLAIN, *others)]
    assert len(set(told)) == len(told)
    assert others[0].settings().items() <= asdict(others[0]).items()


@pytest.mark.parametrize("index", range(3))
def test_what_comes_beside_changes_nothing(index: int) -> None:
    plain, rich = make_group(PLAIN, index), make_group(RICH, index)
    for name in ("images", "masks", "c2w"):
        assert torch.equal(getattr(plain, name), getattr(rich, name))
    assert plain.caption == rich.caption
    more = make_group(replace(RICH, domains=False), index)
    assert more.depth is None
    assert more.guests is not None
    assert rich.guests is not None
    assert torch.equal(more.guests, rich.guests)


def _same(a: Group, b: Group) -> bool:
    return a.caption == b.caption and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "masks", "c2w", *FURTHER)
    )


def test_groups_are_a_function_of_settings_and_index() -> None:
    config = replace(RICH, shares=(0, 0, 1, 1), mixed_elevations=0.5)
    for index in range(2):
        assert _same(make_group(config, index), make_group(config, index))
    assert not _same(make_group(config, 0), make_group(replace(config, seed=1), 0))


def test_shards_bring_back_what_groups_have(tmp_path: Path) -> None:
    paths = list(make_dataset(tmp_path / "rich", replace(RICH, num_scenes=3), workers=1))
    shards = load_shards(paths)
    for row in range(3):
        group = make_group(RICH, row)
        for name in ("images", "masks", "c2w", *FURTHER):
            assert torch.equal(getattr(shards, name)[row], getattr(group, name)), name
    first = shards.first(2)
    assert first.depth is not None
    assert first.depth.shape == (2, 2, 1, 32, 32)
    assert first.guests is not None
    assert first.guests.shape == (2, 3, 3, 32, 32)
    room = sum(path.stat().st_size for path in paths)
    assert RICH.num_bytes / 2 < room < 1.5 * RICH.num_bytes / 2
    plain = list(make_dataset(tmp_path / "plain", replace(PLAIN, num_scenes=2), workers=1))
    assert load_shards(plain).depth is None
    assert load_shards(plain).first(1).guests is None
    with pytest.raises(ValueError, match="2 of 3 shards have depth, the others none"):
        load_shards([*paths, *plain])


def test_depth_and_normals_of_a_sphere() -> None:
    scene = scene_from_caption("a red sphere")
    radius = scene.parts[0].params[-1]
    cameras = orbit([0.0, 100.0], [0.0, 60.0])
    r = scene.render(cameras, 64)
    depth = from_uint8(to_uint8(depth_picture(r.depth, r.mask, cameras)))
    normals = from_uint8(to_uint8(normals_picture(r.normals, r.mask)))
    distance = float(fitting_distance(torch.tensor(40.0)))
    near = depth_of(depth, cameras)[:, 0, 31:33, 31:33].mean((1, 2))
    torch.testing.assert_close(near, torch.full((2,), distance - radius), atol=0.01, rtol=0)
    towards = normals_of(normals)[:, :, 31:33, 31:33].mean((2, 3))
    torch.testing.assert_close(
        towards, torch.nn.functional.normalize(cameras.positions, dim=-1), atol=0.02, rtol=0
    )
    # What a group of this scene holds is read the same way.
    config = replace(PLAIN, domains=True, shares=(1, 0, 0), size=64)
    index = next(
        i for i in range(200) if "sphere" in make_group(replace(config, size=8, num_views=1), i).caption
    )
    group = make_group(config, index)
    assert group.depth is not None
    assert group.normals is not None
    views = Cameras(c2w=group.c2w, fovy_deg=torch.full((2,), group.fovy_deg))
    told = depth_of(from_uint8(group.depth).expand(-1, 3, -1, -1), views)[:, 0, 31:33, 31:33].mean((1, 2))
    torch.testing.assert_close(told, views.positions.norm(dim=-1) - radius, atol=0.03, rtol=0)
    assert group.depth[:, 0][group.masks[:, 0] == 0].max() == 0
    assert (group.normals[:, 0][group.masks[:, 0] == 0] == to_uint8(torch.tensor(0.5))).all()


def test_guests_are_pictures_of_the_scene() -> None:
    group = make_group(RICH, 1)
    assert group.guests is not None
    assert group.guest_masks is not None
    assert group.guest_c2w is not None
    low, high = RICH.elevation_deg
    assert all(low - 0.01 <= each <= high + 0.01 for each in _elevations(group.guest_c2w))
    cameras = Cameras(c2w=group.guest_c2w, fovy_deg=torch.full((3,), group.fovy_deg))
    assert torch.allclose(cameras.positions.norm(dim=-1), fitting_distance(cameras.fovy_deg), atol=1e-4)


def test_half_of_the_guests_have_the_scene_s_light_and_background() -> None:
    cameras = orbit(torch.linspace(0, 350, 40), 20.0)
    background, light = (0.9, 0.1, 0.4), Light()
    guests = invite(cameras, 32, np.random.default_rng(0), background=background, light=light)
    assert torch.equal(torch.cat([guest.camera.c2w for guest in guests]), cameras.c2w)
    own = torch.tensor(background).view(3, 1, 1)
    alike = [guest.light is light for guest in guests]
    assert alike == [torch.equal(guest.behind.expand(3, 32, 32), own.expand(3, 32, 32)) for guest in guests]
    assert 10 <= sum(alike) <= 30
    others = [guest for guest, is_alike in zip(guests, alike, strict=True) if not is_alike]
    assert len({guest.light for guest in others}) == len(others)
    assert len({tuple(guest.behind.expand(3, 32, 32)[:, 0, 0].tolist()) for guest in others}) == len(others)


def test_guests_stand_before_what_they_were_given() -> None:
    """About half of them before the scene's own background, wherever the scene is not."""
    found = 0
    for index in range(6):
        group = make_group(RICH, index)
        assert group.guests is not None
        assert group.guest_masks is not None
        background = group.images[:1, :, :1, :1]
        own = (group.guests[:, :, :1, :1] == background).flatten(1).all(dim=1)
        outside = (group.guest_masks == 0) & own.view(-1, 1, 1, 1)
        assert bool(((group.guests == background) | ~outside).all())
        found += int(own.sum())
    assert 4 <= found <= 14


def test_groups_rendered_together_are_those_rendered_alone() -> None:
    """But for rounding, which may turn a bit or, along an outline, a pixel."""
    config = replace(RICH, shares=(1, 1, 1, 1))
    alone = [make_group(config, index) for index in range(7)]
    assert {group.kind for group in alone} > {"thing", "close_up"}
    cpu = torch.device("cpu")
    assert all(_same(a, b) for a, b in zip(make_groups(config, range(7), cpu), alone, strict=True)), (
        "one by one on a CPU"
    )
    for one, other in zip(make_groups(config, range(7), cpu, together=3), alone, strict=True):
        assert (one.caption, one.kind, one.fovy_deg) == (other.caption, other.kind, other.fovy_deg)
        for name in ("images", "masks", "c2w", *FURTHER):
            off = (getattr(one, name).float() - getattr(other, name).float()).abs()
            assert float((off > 1).float().mean()) < 1e-3, name


def test_backdrops_are_smooth_and_of_three_sorts() -> None:
    rng = np.random.default_rng(0)
    drops = torch.stack([random_backdrop(rng, 64) for _ in range(60)])
    assert drops.shape == (60, 3, 64, 64)
    assert 0 <= float(drops.min()) < float(drops.max()) <= 1
    assert float(drops.diff(dim=-1).abs().max()) < 0.25
    flat = drops.flatten(2).std(-1).amax(-1) < 1e-6
    bend = drops.diff(n=2, dim=-1).abs().amax((1, 2, 3)) < 1e-5  # a ramp is straight
    sorts = [int(flat.sum()), int((bend & ~flat).sum()), int((~bend).sum())]
    assert min(sorts) >= 8


def test_mixed_elevations() -> None:
    config = replace(PLAIN, size=8, num_views=4, elevation_deg=(-30.0, 75.0), shares=(1, 0, 0))
    mixed = [make_group(replace(config, mixed_elevations=1.0), index) for index in range(8)]
    rings = [make_group(config, index) for index in range(8)]
    some = [make_group(replace(config, mixed_elevations=0.5), index) for index in range(8)]
    spreads = [np.ptp(_elevations(group.c2w)) for group in mixed]
    assert min(spreads) > 1
    assert max(np.ptp(_elevations(group.c2w)) for group in rings) < 0.01
    assert 0 < sum(np.ptp(_elevations(group.c2w)) > 1 for group in some) < 8
    angles = [each for group in mixed for each in _elevations(group.c2w)]
    assert -30.01 <= min(angles) < -10
    assert 50 < max(angles) <= 75.01
    for a, b in zip(mixed, rings, strict=True):
        assert a.caption == b.caption
        towards = [torch.atan2(g.c2w[:, 0, 3], g.c2w[:, 2, 3]) for g in (a, b)]
        torch.testing.assert_close(towards[0], towards[1], atol=1e-4, rtol=0)


def test_close_ups_are_taken_from_in_front() -> None:
    config = replace(
        PLAIN, size=16, num_views=4, shares=(0, 0, 0, 1), num_guests=2, elevation_deg=(-30.0, 75.0)
    )
    backgrounds = 0
    for index in range(6):
        group = make_group(config, index)
        spec = parse(group.caption)
        assert group.kind == "close_up"
        assert isinstance(spec, HeadSpec)
        assert spec.close_up
        assert group.guest_c2w is not None
        c2w = torch.cat([group.c2w, group.guest_c2w])
        azimuths, elevations = Cameras(c2w=c2w, fovy_deg=torch.full((6,), 40.0)).angles()
        assert max(map(abs, azimuths)) <= 35.01
        assert -15.01 <= min(elevations) < max(elevations) <= 25.01
        assert np.ptp(azimuths[:4]) > 35 * 0.5
        assert float((group.masks > 127).float().mean()) > 0.5
        backgrounds += "background" in group.caption
    assert 0 < backgrounds < 6
    mixed = replace(config, size=8, num_views=1, num_guests=0, shares=(1, 0, 1, 2))
    assert {make_group(mixed, index).kind for index in range(10)} == {"thing", "head", "close_up"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_guests": -1}, "num_guests must not be negative, got -1"),
        ({"mixed_elevations": 1.5}, r"mixed_elevations must lie in 0..1, got 1.5"),
        ({"shares": (0.5, 0.5)}, r"shares must be three or four numbers .*close-ups.*got 0.5, 0.5"),
        ({"shares": ()}, "got none"),
        ({"shares": (1, 1, 1, float("nan"))}, "got 1, 1, 1, nan"),
        ({"shares": (0, 0, 0, 0)}, "not all zero"),
        ({"elevation_deg": (-30, 95)}, "elevation_deg must lie in -90..90"),
    ],
)
def test_bad_settings_are_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DatasetConfig(**change)  # pyright: ignore[reportArgumentType]
