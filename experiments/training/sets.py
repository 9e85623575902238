"""What a step of the UNet's training sees of a scene: a set of its pictures, some of them given.

Legend: N scenes, V views of each, P pictures of a scene in all, B sets, S slots of a set; latents are C, h, w.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffusion.adapters.camera import camera_condition
from diffusion.backbone import Backbone
from diffusion.domains import DOMAINS
from experiments.training.config import SetsConfig
from experiments.training.latents import cached_latents
from experiments.world.dataset import Shards

# Shares of mixed sets: half the cameras in colours and then in one other domain, which is what a reconstruction asks
# for; as few cameras in whatever domains; the rest, all cameras in one domain each.
_PAIRED, _FEW_CAMERAS = 0.35, 0.3
_ONE_GIVEN = 0.7  # share of sets with given slots in which there is just one
_ALL_COLORS = 0.5  # share of mixed sets with given slots in which those are all the colours
_SHARES = (0.5, 0.25, 0.25)  # of colours, depth and normals in mixed sets


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """All pictures of all scenes as the UNet sees them: the colours of V views, then, where they are learned, their
    depth, their normals, and guests.

    latents: [N, P, C, h, w] in half precision. camera: [N, P, 16], which tells cameras and domains.
    """

    latents: Tensor
    camera: Tensor
    num_views: int
    num_guests: int

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def first_guest(self) -> int:
        """Where the guests begin among the P."""
        return self.latents.shape[1] - self.num_guests

    @staticmethod
    def of(backbone: Backbone, shards: Shards, config: SetsConfig, cache: Path | None) -> Pool:
        """All of `shards` that `config` asks for; ValueError where it asks for what they lack."""
        views, guests = shards.images.shape[1], 0 if shards.guests is None else shards.guests.shape[1]
        config.check_data(views, shards.depth is not None and shards.normals is not None, guests)
        pictures, cameras = [shards.images], [camera_condition(shards.c2w)]
        if config.domains:
            assert shards.depth is not None
            assert shards.normals is not None
            pictures += [shards.depth.expand(-1, -1, 3, -1, -1), shards.normals]
            of_views = torch.ones(shards.c2w.shape[:2], dtype=torch.long)
            cameras += [camera_condition(shards.c2w, index * of_views) for index in range(1, len(DOMAINS))]
        if config.guests:
            assert shards.guests is not None
            assert shards.guest_c2w is not None
            pictures.append(shards.guests)
            cameras.append(camera_condition(shards.guest_c2w))
        return Pool(
            latents=torch.cat([cached_latents(backbone, each, cache) for each in pictures], dim=1),
            camera=torch.cat(cameras, dim=1),
            num_views=views,
            num_guests=guests if config.guests else 0,
        )

    def pick(self, rows: Tensor, picks: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, S, C, h, w] and camera [B, S, 16] of pictures picks [B, S] of scenes rows [B]."""
        return self.latents[rows[:, None], picks], self.camera[rows[:, None], picks]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sets:
    """picks: long [B, S], which of a scene's P pictures a set holds. given: bool [B, S], which of them are clean and
    not learned. counted: how many slots, the last ones, a measurement is of; 0 is all."""

    picks: Tensor
    given: Tensor
    counted: int = 0

    @staticmethod
    def same(picks: Tensor, *, given: int = 0, counted: int = 0) -> Sets:
        """One set, picks [S], of which the first slots are given."""
        return Sets(picks=picks[None], given=(torch.arange(len(picks)) < given)[None], counted=counted)

    def expand(self, count: int) -> Sets:
        """The one set for `count` scenes."""
        return Sets(
            picks=self.picks.expand(count, -1), given=self.given.expand(count, -1), counted=self.counted
        )


def draw_sets(config: SetsConfig, pool: Pool, batch_size: int, generator: torch.Generator) -> Sets:
    """Sets for one step: `batch_size` of as many slots as there are views, or fewer that are larger; all of one size.
    Nothing is drawn from `generator` that the settings do not ask for."""
    views, size = pool.num_views, pool.num_views
    if config.set_views:
        size = config.set_views[int(torch.randint(len(config.set_views), (1,), generator=generator))]
    count = max(1, batch_size * views // size)
    picks = torch.arange(size).expand(count, size)
    if config.domains:
        mixed = torch.rand(count, generator=generator) < config.domains
        if size > views:  # there are not so many colours
            mixed = torch.ones_like(mixed)
        picks = torch.where(mixed[:, None], _mixed(count, size, views, generator), picks)
    given = torch.zeros_like(picks, dtype=torch.bool)
    if config.given:
        given = _given(config, picks < views, generator)
    if config.guests:
        invited = given & (picks < views) & (torch.rand(picks.shape, generator=generator) < config.guests)
        which = torch.randint(pool.num_guests, picks.shape, generator=generator)
        picks = torch.where(invited, pool.first_guest + which, picks)
    return Sets(picks=picks, given=given)


def _mixed(count: int, size: int, views: int, generator: torch.Generator) -> Tensor:
    """Picks [count, size] of colours, depth and normals, no picture twice: of half as many cameras as slots, or one a
    camera."""
    shares, half = torch.tensor(_SHARES), (size + 1) // 2
    order = torch.rand(count, views, generator=generator).argsort(dim=1)
    kind = torch.rand(count, 1, generator=generator)

    chosen = (order.argsort(dim=1) < half).float()
    weights = (shares[:, None] * chosen[:, None]).flatten(1)
    picks = torch.multinomial(weights, size, generator=generator)
    if half <= views:
        domain = torch.randint(1, len(shares), (count, 1), generator=generator)
        paired = torch.cat([order[:, :half], domain * views + order[:, : size - half]], dim=1)
        picks = torch.where(kind < _PAIRED, paired, picks)
    if size <= views:
        domains = torch.multinomial(shares, count * size, replacement=True, generator=generator)
        each = domains.view(count, size) * views + torch.arange(size)
        picks = torch.where(kind > _PAIRED + _FEW_CAMERAS, each, picks)
    return picks


def _given(config: SetsConfig, colors: Tensor, generator: torch.Generator) -> Tensor:
    """Which slots [B, S] are given, by which of them show colours: at least one in the sets that have any, and never
    all."""
    count, size = colors.shape
    chance = torch.rand(4, count, generator=generator)
    any_domain = (chance[0] < config.given_any) | ~colors.any(dim=1)
    eligible = colors | any_domain[:, None]
    all_colors = ~any_domain & ~colors.all(dim=1) & (chance[2] < _ALL_COLORS)
    number = torch.randint(1, size, (count,), generator=generator)
    number = torch.where(chance[1] < _ONE_GIVEN, 1, number)
    number = torch.where(all_colors, size, number)
    number = torch.minimum(number, eligible.sum(dim=1)).clamp(max=size - 1)
    preference = torch.rand(count, size, generator=generator) - 2.0 * ~eligible
    first = preference.argsort(dim=1, descending=True).argsort(dim=1)
    return (first < number[:, None]) & (chance[3] < config.given)[:, None]
