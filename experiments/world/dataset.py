"""Training pictures of the world, rendered once into shards and read back in any order.

A shard is one safetensors file of groups: V pictures of one scene, with the caption, the cameras and what the caption
means; where the set has them, also depth, normals and guests. The cameras stand evenly around the scene; those of a
close-up in front of its face. Shard i of a set depends on the set's settings and i alone, so that a set can be
made by any number of processes, stopped and continued.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from experiments.world.captions import BACKGROUNDS, is_short, sample_caption, with_background
from experiments.world.config import DatasetConfig
from experiments.world.guests import Guest, invite, random_light
from experiments.world.render import Light, render
from experiments.world.scene import Scene, scene_from_caption
from experiments.world.sdf import Color, compile_parts
from experiments.world.shard_files import make_shards, write_shard
from gen3d.cameras import Cameras, orbit
from gen3d.domain_pictures import depth_picture, normals_picture
from video.pixels import to_uint8

KINDS = ("thing", "pair", "head", "close_up")
# A close-up is seen from in front: azimuths up to this to either side, and these elevations, degrees.
_CLOSE_UP_AZIMUTH = 35.0
_CLOSE_UP_ELEVATION = (-15.0, 25.0)
# What has random numbers of its own, so that all else in a set is the same with it and without.
_GUESTS, _ELEVATIONS = 1, 2
_TOGETHER_ON_GPU = 64  # scenes rendered at once
# Tensors of a shard: of every one, and of sets that ask for them.
_ALWAYS = ("images", "masks", "c2w", "fovy_deg")
_FURTHER = ("depth", "normals", "guests", "guest_masks", "guest_c2w")


@dataclass(frozen=True, slots=True)
class Group:
    """One scene: pictures `[V, 3, H, W]` uint8 sRGB, masks `[V, 1, H, W]` uint8, cameras c2w `[V, 4, 4]`.

    depth `[V, 1, H, W]` (the grey of `depth_picture`) and normals `[V, 3, H, W]` of `normals_picture`, uint8, where the
    set has them. Guests `[G, 3, H, W]` with guest_masks and guest_c2w, like the views, where it has any.
    """

    images: Tensor
    masks: Tensor
    c2w: Tensor
    fovy_deg: float
    caption: str
    kind: str
    depth: Tensor | None = None
    normals: Tensor | None = None
    guests: Tensor | None = None
    guest_masks: Tensor | None = None
    guest_c2w: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """All that is drawn by chance of a group, before any picture is taken."""

    caption: str
    kind: str
    scene: Scene
    background: Color
    light: Light
    cameras: Cameras
    guests: tuple[Guest, ...]


def make_group(config: DatasetConfig, index: int) -> Group:
    """Group `index` of the set: a pure function of its arguments."""
    return _take_pictures(config, [_plan(config, index)], torch.device("cpu"))[0]


def make_groups(
    config: DatasetConfig, indices: Sequence[int], device: torch.device, *, together: int | None = None
) -> list[Group]:
    """Those groups of the set, in their order.

    together: how many are rendered at once, which gives the same pictures but for rounding; None is one on a CPU and
        many on a GPU.
    """
    together = together or (1 if device.type == "cpu" else _TOGETHER_ON_GPU)
    plans = [_plan(config, index) for index in indices]
    # Scenes of as many parts beside each other, for all are rendered as if they had as many as the one with the most.
    order = sorted(range(len(plans)), key=lambda i: len(plans[i].scene.parts))
    groups: dict[int, Group] = {}
    for first in range(0, len(order), together):
        some = order[first : first + together]
        groups |= zip(some, _take_pictures(config, [plans[i] for i in some], device), strict=True)
    return [groups[i] for i in range(len(plans))]


def _plan(config: DatasetConfig, index: int) -> _Plan:
    rng = _numbers(config, index)
    shares = np.asarray(config.shares) / sum(config.shares)
    kind = KINDS[rng.choice(len(shares), p=shares)]
    close_up = kind == "close_up"
    caption = sample_caption(
        rng, kinds=("head" if close_up else kind,), held_out=config.held_out, close_up=close_up
    )
    scene = scene_from_caption(caption, seed=int(rng.integers(1 << 31)))
    name, background = random_background(rng)
    while close_up and name is not None and not is_short(with_background(caption, name)):
        name, background = random_background(rng)
    if name is not None:
        caption = with_background(caption, name)
    azimuth, elevation = _angles(config, rng, close_up)
    if config.mixed_elevations and not close_up:
        aside = _numbers(config, index, _ELEVATIONS)
        if aside.random() < config.mixed_elevations:
            elevation = torch.from_numpy(aside.uniform(*config.elevation_deg, config.num_views))
    cameras = orbit(azimuth, elevation, fovy_deg=float(rng.uniform(*config.fovy_deg)))
    light = random_light(rng)
    guests: tuple[Guest, ...] = ()
    if config.num_guests:
        others = _numbers(config, index, _GUESTS)
        there = _guest_cameras(config, others, close_up, float(cameras.fovy_deg[0]))
        guests = invite(there, config.size, others, background=background, light=light)
    return _Plan(caption, kind, scene, background, light, cameras, guests)


def _take_pictures(config: DatasetConfig, plans: Sequence[_Plan], device: torch.device) -> list[Group]:
    """The groups of `plans`, rendered together on `device`."""
    size = config.size
    cameras = Cameras.cat([plan.cameras for plan in plans]).to(device)
    r = render(
        compile_parts([plan.scene.parts for plan in plans], device),
        cameras,
        size,
        torch.tensor([plan.background for plan in plans], dtype=torch.float32, device=device),
        [plan.light for plan in plans],
        torch.tensor([plan.scene.reach for plan in plans]),
    )
    columns = {"images": to_uint8(r.images), "masks": to_uint8(r.mask)}
    if config.domains:
        depth, normals, mask = (each.flatten(0, 1) for each in (r.depth, r.normals, r.mask))
        lead = r.mask.shape[:2]
        columns["depth"] = to_uint8(depth_picture(depth, mask, cameras)[:, :1]).unflatten(0, lead)
        columns["normals"] = to_uint8(normals_picture(normals, mask)).unflatten(0, lead)
    guests = [(plan, guest) for plan in plans for guest in plan.guests]
    if guests:
        seen = render(
            compile_parts([plan.scene.parts for plan, _ in guests], device),
            Cameras.cat([guest.camera for _, guest in guests]).to(device),
            size,
            torch.zeros(len(guests), 3, device=device),
            [guest.light for _, guest in guests],
            torch.tensor([plan.scene.reach for plan, _ in guests]),
        )
        lead = (len(plans), config.num_guests)
        behind = torch.stack([guest.behind.expand(3, size, size) for _, guest in guests]).to(device)
        pictures = seen.images[:, 0] + (1 - seen.mask[:, 0]) * behind
        columns["guests"] = to_uint8(pictures).unflatten(0, lead)
        columns["guest_masks"] = to_uint8(seen.mask[:, 0]).unflatten(0, lead)
    columns = {name: each.cpu() for name, each in columns.items()}
    return [
        Group(
            c2w=plan.cameras.c2w,
            fovy_deg=float(plan.cameras.fovy_deg[0]),
            caption=plan.caption,
            kind=plan.kind,
            guest_c2w=Cameras.cat([guest.camera for guest in plan.guests]).c2w if plan.guests else None,
            **{name: each[i] for name, each in columns.items()},
        )
        for i, plan in enumerate(plans)
    ]


def _numbers(config: DatasetConfig, index: int, *what: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, index, int(config.held_out), *what])


def _angles(config: DatasetConfig, rng: np.random.Generator, close_up: bool) -> tuple[Tensor, Tensor | float]:
    """Azimuths `[V]` and elevations of a group's views, degrees: evenly around, or spread in front of a face."""
    count = config.num_views
    if close_up:
        # One in each V-th of the range, in random order.
        shares = (rng.permutation(count) + rng.uniform(size=count)) / count
        azimuth = torch.from_numpy(_CLOSE_UP_AZIMUTH * (2 * shares - 1))
        return azimuth, torch.from_numpy(rng.uniform(*_CLOSE_UP_ELEVATION, count))
    azimuth = float(rng.uniform(0, 360)) + torch.arange(count) * (360.0 / count)
    return azimuth, float(rng.uniform(*config.elevation_deg))


def _guest_cameras(
    config: DatasetConfig, rng: np.random.Generator, close_up: bool, fovy_deg: float
) -> Cameras:
    count, reach = config.num_guests, _CLOSE_UP_AZIMUTH if close_up else 180.0
    azimuth = torch.from_numpy(rng.uniform(-reach, reach, count))
    elevation = rng.uniform(*(_CLOSE_UP_ELEVATION if close_up else config.elevation_deg), count)
    return orbit(azimuth, torch.from_numpy(elevation), fovy_deg=fovy_deg)


def random_background(rng: np.random.Generator) -> tuple[str | None, Color]:
    """A colour with a name or, without one, nearly a grey; sRGB in [0, 1]."""
    if rng.random() < 0.6:
        name = str(rng.choice(list(BACKGROUNDS)))
        return name, BACKGROUNDS[name]
    grey = rng.uniform(0.1, 1.0)
    red, green, blue = np.clip(grey + rng.normal(0, 0.06, 3), 0, 1).tolist()
    return None, (red, green, blue)


def _make_shard(config: DatasetConfig, device: torch.device, shard: int, path: Path) -> None:
    first = shard * config.scenes_per_shard
    indices = range(first, min(first + config.scenes_per_shard, config.num_scenes))
    groups = make_groups(config, indices, device)
    tensors = {
        "images": torch.stack([g.images for g in groups]),
        "masks": torch.stack([g.masks for g in groups]),
        "c2w": torch.stack([g.c2w for g in groups]),
        "fovy_deg": torch.tensor([g.fovy_deg for g in groups]),
    }
    for name in _FURTHER:
        column = [each for g in groups if (each := getattr(g, name)) is not None]
        if column:
            tensors[name] = torch.stack(column)
    write_shard(path, tensors, {"captions": [g.caption for g in groups], "kinds": [g.kind for g in groups]})


def make_dataset(
    folder: Path, config: DatasetConfig, *, workers: int, device: torch.device | str = "cpu"
) -> Iterator[Path]:
    """Make every shard that `folder` lacks; yields each shard's path, in order, once it is there.

    device: where the pictures are rendered, by `workers` processes.

    Raises:
        ValueError: `folder` holds a set made with other settings, or the disk is too full.
    """
    return make_shards(
        folder,
        config.settings(),
        partial(_make_shard, config, torch.device(device)),
        num_shards=config.num_shards,
        num_bytes=config.num_bytes,
        workers=workers,
    )


@dataclass(frozen=True, slots=True)
class Shards:
    """All groups of a folder of shards in memory, as arrays: images `[N, V, 3, H, W]` uint8 and so on, as in `Group`;
    None for what the set was made without."""

    images: Tensor
    masks: Tensor
    c2w: Tensor
    fovy_deg: Tensor
    captions: list[str]
    kinds: list[str]
    depth: Tensor | None = None
    normals: Tensor | None = None
    guests: Tensor | None = None
    guest_masks: Tensor | None = None
    guest_c2w: Tensor | None = None

    def __len__(self) -> int:
        return len(self.captions)

    def first(self, count: int) -> Shards:
        """The first groups, all of them if there are no more than `count`."""
        there = [each.name for each in fields(self) if getattr(self, each.name) is not None]
        return Shards(**{name: getattr(self, name)[:count] for name in there})


def load_shards(paths: Sequence[Path]) -> Shards:
    """Read shards whole.

    Raises:
        ValueError: there are none, or some lack pictures of a sort that others have.
    """
    if not paths:
        raise ValueError("no shards to read: make the data set first")
    columns: dict[str, list[Tensor]] = {name: [] for name in (*_ALWAYS, *_FURTHER)}
    captions: list[str] = []
    kinds: list[str] = []
    for path in paths:
        with safe_open(str(path), framework="pt") as file:
            there = set(file.keys())
            for name, column in columns.items():
                if name in there or name in _ALWAYS:
                    column.append(file.get_tensor(name))
            words = file.metadata()
        captions += json.loads(words["captions"])
        kinds += json.loads(words["kinds"])
    for name, column in columns.items():
        if 0 < len(column) < len(paths):
            raise ValueError(
                f"{len(column)} of {len(paths)} shards have {name}, the others none: read shards of one set"
            )
    joined = {name: torch.cat(column) for name, column in columns.items() if column}
    return Shards(captions=captions, kinds=kinds, **joined)
