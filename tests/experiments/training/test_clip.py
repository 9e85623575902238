"""The losses of CLIP's towers, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from diffusion.backbone import load
from experiments.training.clip import ClipRecipe
from experiments.world.dataset import Shards


@pytest.mark.parametrize(
    "game", ["captions", "thing", "pair", "head", "shape of thing", "shape of pair", "exchanges", "collages"]
)
def test_every_game_teaches_both_towers(shards: Callable[..., Shards], game: str) -> None:
    tokenizer = load("tiny").tokenizer
    torch.manual_seed(0)
    data = shards()
    recipe = ClipRecipe(tokenizer, data, data, torch.device("cpu"))
    assert set(recipe.names) == {*recipe.games, "collages"}
    recipe.names = [game]
    loss, _ = recipe.loss(8, torch.Generator().manual_seed(0))
    again, _ = recipe.loss(8, torch.Generator().manual_seed(0))
    assert loss.item() == again.item() > 0.0
    loss.backward()
    for tower in (recipe.text, recipe.image):
        gradients = [float(p.grad.abs().max()) for p in tower.parameters() if p.grad is not None]
        assert max(gradients) > 1e-6
    for parameter in recipe.modules.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


def test_what_is_measured(shards: Callable[..., Shards]) -> None:
    data = shards()
    torch.manual_seed(0)
    found = ClipRecipe(load("tiny").tokenizer, data, data, torch.device("cpu")).validate()
    assert set(found) == {"retrieval_top1", "thing_top1", "told_apart"}
    assert all(0.0 <= value <= 1.0 for value in found.values())


def test_things_of_which_no_pair_can_be_made_are_shown_alone(shards: Callable[..., Shards]) -> None:
    data = shards({"a red car": "thing"})
    recipe = ClipRecipe(load("tiny").tokenizer, data, data, torch.device("cpu"))
    recipe.names = ["collages"]
    said, images = recipe._draw_collages(4, torch.Generator().manual_seed(0))
    assert said.rows.tolist() == [0, 0, 0, 0]
    assert images.shape == (4, 3, 128, 128)
