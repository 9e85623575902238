from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from experiments.world.captions import with_background
from experiments.world.dataset import Shards

CAPTIONS = {
    with_background("a red car", "white"): "thing",
    with_background("a car", "white"): "thing",
    "a mushroom with a red cap and a blue stem": "thing",
    "a red car on a blue cube": "pair",
    "a blue cone next to a blue sphere": "pair",
    with_background("a green cat left of a yellow ball", "grey"): "pair",
    "a portrait of a man with short brown hair": "head",
    "a portrait of a woman with a red hat": "head",
    "a blue cube": "thing",
}


@pytest.fixture
def shards() -> Callable[..., Shards]:
    """Noise under captions of these kinds."""

    def make(captions: Mapping[str, str] = CAPTIONS) -> Shards:
        generator = torch.Generator().manual_seed(0)
        size = (len(captions), 2, 3, 128, 128)
        images = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
        return Shards(
            images=images,
            masks=torch.full_like(images[:, :, :1], 255),
            c2w=torch.eye(4).expand(len(captions), 2, 4, 4),
            fovy_deg=torch.full((len(captions),), 40.0),
            captions=list(captions),
            kinds=list(captions.values()),
        )

    return make
