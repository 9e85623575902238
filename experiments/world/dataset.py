"""Training pictures of the world, rendered once into shards and read back in any order.

A shard is one safetensors file of groups: V pictures of one scene from cameras evenly around it, with the caption,
the cameras and what the caption means. Shard i of a set depends on the set's settings and i alone, so that a set can be
made by any number of processes, stopped and continued.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from experiments.world.captions import BACKGROUNDS, sample_caption, with_background
from experiments.world.config import DatasetConfig
from experiments.world.render import Light
from experiments.world.scene import scene_from_caption
from experiments.world.sdf import Color
from experiments.world.shard_files import make_shards, write_shard
from gen3d.cameras import ring
from video.pixels import to_uint8

KINDS = ("thing", "pair", "head")


@dataclass(frozen=True, slots=True)
class Group:
    """One scene: pictures `[V, 3, H, W]` uint8 sRGB, masks `[V, 1, H, W]` uint8, cameras c2w `[V, 4, 4]`."""

    images: Tensor
    masks: Tensor
    c2w: Tensor
    fovy_deg: float
    caption: str
    kind: str


def make_group(config: DatasetConfig, index: int) -> Group:
    """Group `index` of the set: a pure function of its arguments."""
    rng = np.random.default_rng([config.seed, index, int(config.held_out)])
    shares = np.asarray(config.shares) / sum(config.shares)
    kind = KINDS[rng.choice(3, p=shares)]
    caption = sample_caption(rng, kinds=(kind,), held_out=config.held_out)
    scene = scene_from_caption(caption, seed=int(rng.integers(1 << 31)))
    name, background = random_background(rng)
    if name is not None:
        caption = with_background(caption, name)
    cameras = ring(
        config.num_views,
        azimuth_deg=float(rng.uniform(0, 360)),
        elevation_deg=float(rng.uniform(*config.elevation_deg)),
        fovy_deg=float(rng.uniform(*config.fovy_deg)),
    )
    r = scene.render(cameras, config.size, background=background, light=random_light(rng))
    return Group(
        images=to_uint8(r.images),
        masks=to_uint8(r.mask),
        c2w=cameras.c2w,
        fovy_deg=float(cameras.fovy_deg[0]),
        caption=caption,
        kind=kind,
    )


def random_background(rng: np.random.Generator) -> tuple[str | None, Color]:
    """A colour with a name or, without one, nearly a grey; sRGB in [0, 1]."""
    if rng.random() < 0.6:
        name = str(rng.choice(list(BACKGROUNDS)))
        return name, BACKGROUNDS[name]
    grey = rng.uniform(0.1, 1.0)
    red, green, blue = np.clip(grey + rng.normal(0, 0.06, 3), 0, 1).tolist()
    return None, (red, green, blue)


def random_light(rng: np.random.Generator) -> Light:
    """Light from above and in front, more or less from a side."""
    azimuth, elevation = np.radians(rng.uniform(-60, 75)), np.radians(rng.uniform(35, 65))
    direction = (
        float(np.cos(elevation) * np.sin(azimuth)), float(np.sin(elevation)), float(np.cos(elevation) * np.cos(azimuth))
    )  # fmt: skip
    return Light(direction=direction)


def _make_shard(config: DatasetConfig, shard: int, path: Path) -> None:
    first = shard * config.scenes_per_shard
    groups = [
        make_group(config, i) for i in range(first, min(first + config.scenes_per_shard, config.num_scenes))
    ]
    tensors = {
        "images": torch.stack([g.images for g in groups]),
        "masks": torch.stack([g.masks for g in groups]),
        "c2w": torch.stack([g.c2w for g in groups]),
        "fovy_deg": torch.tensor([g.fovy_deg for g in groups]),
    }
    write_shard(path, tensors, {"captions": [g.caption for g in groups], "kinds": [g.kind for g in groups]})


def make_dataset(folder: Path, config: DatasetConfig, *, workers: int) -> Iterator[Path]:
    """Make every shard that `folder` lacks; yields each shard's path, in order, once it is there.

    Raises:
        ValueError: `folder` holds a set made with other settings, or the disk is too full.
    """
    return make_shards(
        folder,
        asdict(config),
        partial(_make_shard, config),
        num_shards=config.num_shards,
        num_bytes=config.num_scenes * config.num_views * config.size**2 * 4,
        workers=workers,
    )


@dataclass(frozen=True, slots=True)
class Shards:
    """All groups of a folder of shards in memory, as arrays: images `[N, V, 3, H, W]` uint8 and so on."""

    images: Tensor
    masks: Tensor
    c2w: Tensor
    fovy_deg: Tensor
    captions: list[str]
    kinds: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    def first(self, count: int) -> Shards:
        """The first groups, all of them if there are no more than `count`."""
        return Shards(**{each.name: getattr(self, each.name)[:count] for each in fields(self)})


def load_shards(paths: Sequence[Path]) -> Shards:
    """Read shards whole. Raises `ValueError` when there are none."""
    if not paths:
        raise ValueError("no shards to read: make the data set first")
    columns: dict[str, list[Tensor]] = {"images": [], "masks": [], "c2w": [], "fovy_deg": []}
    captions: list[str] = []
    kinds: list[str] = []
    for path in paths:
        with safe_open(str(path), framework="pt") as file:
            for name, column in columns.items():
                column.append(file.get_tensor(name))
            words = file.metadata()
        captions += json.loads(words["captions"])
        kinds += json.loads(words["kinds"])
    joined = {name: torch.cat(column) for name, column in columns.items()}
    return Shards(captions=captions, kinds=kinds, **joined)
