"""The games that the CLIP towers play, and what is done to the pictures."""

from __future__ import annotations

import pytest
import torch

from diffusion.backbone import load
from experiments.training.clip import ClipRecipe, games, mirror_some, recolor, zoom
from experiments.world.caption_parsing import parse
from experiments.world.captions import COLORS, held_out, split_background, with_background
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
}


def shards(captions: dict[str, str]) -> Shards:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(captions), 2, 3, 128, 128), generator=generator, dtype=torch.uint8)
    return Shards(images, torch.eye(4).expand(len(captions), 2, 4, 4), torch.full((len(captions),), 40.0),
                  list(captions), list(captions.values()))  # fmt: skip


def as_they_are(captions: list[str]) -> torch.Tensor:
    """Tokens that tell captions apart, and nothing else."""
    known.extend(captions)
    return torch.arange(len(known) - len(captions), len(known))[:, None]


known: list[str] = []


def words(tokens: torch.Tensor) -> list[str]:
    return [known[int(token)] for token in tokens.flatten()]


def test_what_is_said_in_each_game() -> None:
    found = games(shards(CAPTIONS), as_they_are)
    captions = list(CAPTIONS)
    assert words(found["captions"].tokens) == captions
    assert words(found["thing"].tokens) == ["a red car", "a car", captions[2]]
    assert words(found["pair"].tokens)[2] == "a green cat left of a yellow ball"
    assert words(found["head"].tokens) == captions[-2:]
    assert words(found["shape of thing"].tokens) == ["a car", "a car", "a mushroom"]
    assert words(found["shape of pair"].tokens)[0] == "a car on a cube"
    # Two cars are one shape, and no two colours of a car one thing.
    assert found["shape of thing"].meanings.tolist() == [0, 0, 1]
    assert found["thing"].meanings.tolist() == [0, 1, 2]
    assert [name for name, said in found.items() if said.recolored] == ["shape of thing", "shape of pair"]
    assert [name for name, said in found.items() if said.mirrored] == ["thing", "shape of thing"]
    for name, said in found.items():
        if said.recolored:
            assert not {color for each in words(said.tokens) for color in COLORS if color in each.split()}, (
                name
            )


def test_wrong_captions_are_wrong_and_never_held_out() -> None:
    found = games(shards(CAPTIONS), as_they_are)["exchanges"]
    assert found.wrong is not None
    for row, tokens, wrong in zip(found.rows.tolist(), found.tokens, found.wrong, strict=True):
        right, *others = words(tokens)
        said = [other for other, there in zip(others, wrong.tolist(), strict=True) if there]
        assert said
        for other in said:
            assert parse(other) != parse(right)
            assert not held_out(parse(other))
        assert [other for other, there in zip(others, wrong.tolist(), strict=True) if not there] == [""] * (
            3 - len(said)
        )
        assert parse(right) == parse(split_background(list(CAPTIONS)[row])[0])
    # Who is left of whom depends on where the picture is taken from, but not who is on top.
    on, beside = (found.rows.tolist().index(row) for row in (3, 5))
    assert found.wrong.sum(1)[[on, beside]].tolist() == [3, 2]
    # Two blue things beside each other: every exchange is the same scene.
    assert 4 not in found.rows.tolist()


def test_a_data_set_without_a_kind_has_fewer_games() -> None:
    assert list(games(shards({"a red car": "thing"}), as_they_are)) == ["captions", "thing", "shape of thing"]


@pytest.mark.parametrize(
    "game", ["captions", "thing", "pair", "head", "shape of thing", "shape of pair", "exchanges"]
)
def test_every_game_teaches_both_towers(game: str) -> None:
    tokenizer = load("tiny").tokenizer
    torch.manual_seed(0)
    data = shards(CAPTIONS)
    recipe = ClipRecipe(tokenizer, data, data, torch.device("cpu"))
    assert set(recipe.names) == set(recipe.games)
    recipe.names = [game]
    loss, _ = recipe.loss(4, torch.Generator().manual_seed(0))
    again, _ = recipe.loss(4, torch.Generator().manual_seed(0))
    assert loss.item() == again.item() >= 0.0
    loss.backward()
    for tower in (recipe.text, recipe.image):
        gradients = [float(p.grad.abs().max()) for p in tower.parameters() if p.grad is not None]
        assert max(gradients) > 1e-6
    for parameter in recipe.modules.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


def test_what_is_measured() -> None:
    data = shards(CAPTIONS)
    torch.manual_seed(0)
    found = ClipRecipe(load("tiny").tokenizer, data, data, torch.device("cpu")).validate()
    assert set(found) == {"retrieval_top1", "thing_top1", "told_apart"}
    assert all(0.0 <= value <= 1.0 for value in found.values())


def test_recolor_shuffles_colours_and_leaves_greys() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand(1, 1, 8, 8, generator=generator).expand(64, 3, 8, 8)
    assert torch.allclose(recolor(grey, torch.Generator().manual_seed(1)), grey, atol=1e-5)
    red = torch.zeros(64, 3, 4, 4)
    red[:, 0] = 1.0
    colors = recolor(red, torch.Generator().manual_seed(1))[:, :, 0, 0]
    assert torch.allclose(colors.sum(1), torch.ones(64), atol=1e-5)
    without = (colors - 1 / 3).abs().amax(1) < 1e-5
    assert 8 <= int(without.sum()) <= 32  # about three tenths
    assert set(colors[~without].argmax(1).tolist()) == {0, 1, 2}


def test_half_are_mirrored() -> None:
    images = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mirrored = mirror_some(images, torch.Generator().manual_seed(1))
    flipped = [bool(torch.equal(a, b.flip(-1))) for a, b in zip(mirrored, images, strict=True)]
    same = [bool(torch.equal(a, b)) for a, b in zip(mirrored, images, strict=True)]
    assert [a != b for a, b in zip(flipped, same, strict=True)] == [True] * 64
    assert 20 <= sum(flipped) <= 44


def test_zoom_moves_and_scales_but_never_mirrors() -> None:
    # A red left and a blue right half, whose border stands still or moves with the picture, on grey.
    images = torch.full((64, 3, 32, 32), 0.5)
    images[:, :, 8:24, 8:24] = 0.0
    images[:, 0, 8:24, 8:16] = images[:, 2, 8:24, 16:24] = 1.0
    zoomed = zoom(images, torch.Generator().manual_seed(0))
    assert zoomed.shape == images.shape
    assert torch.equal(zoomed, zoom(images, torch.Generator().manual_seed(0)))
    columns = torch.arange(32.0)
    red, blue = ((zoomed[:, c] - zoomed[:, 1]).clamp(min=0) for c in (0, 2))
    centres = [(part.sum(1) * columns).sum(1) / part.sum((1, 2)) for part in (red, blue)]
    assert bool((centres[0] < centres[1]).all())
    middle = (centres[0] + centres[1]) / 2 - 15.5
    assert 0.5 < float(middle.abs().max()) <= 0.12 * 32 / (1 - 0.25) + 0.5
    area = (red + blue).sum((1, 2)) / 256
    assert 1 / 1.26**2 < float(area.min()) < 0.85
    assert 1.15 < float(area.max()) < 1 / 0.74**2
    # What comes in is the border's grey.
    assert torch.allclose(zoomed[:, :, [0, -1]], torch.tensor(0.5))


def test_no_zoom_is_the_picture_itself() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(zoom(images, torch.Generator(), most=0.0, shift=0.0), images, atol=1e-5)
