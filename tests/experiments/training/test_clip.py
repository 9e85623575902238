"""What the recipe of the CLIP towers does to pictures."""

from __future__ import annotations

import torch

from diffusion.backbone import load
from experiments.training.clip import ClipRecipe, zoom
from experiments.world.dataset import Shards


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
    assert 0.5 < float(middle.abs().max()) <= 0.08 * 32 / (1 - 0.15) + 0.5
    area = (red + blue).sum((1, 2)) / 256
    assert 1 / 1.16**2 < float(area.min()) < 0.85
    assert 1.15 < float(area.max()) < 1 / 0.84**2
    # What comes in is the border's grey.
    assert torch.allclose(zoomed[:, :, [0, -1]], torch.tensor(0.5))


def test_no_zoom_is_the_picture_itself() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(zoom(images, torch.Generator(), most=0.0, shift=0.0), images, atol=1e-5)


def _recipe(num_contrasts: int) -> ClipRecipe:
    generator = torch.Generator().manual_seed(0)
    shards = Shards(
        images=torch.randint(0, 256, (4, 1, 3, 128, 128), generator=generator, dtype=torch.uint8),
        c2w=torch.eye(4).expand(4, 1, 4, 4),
        fovy_deg=torch.full((4,), 40.0),
        captions=["a red ball", "a blue cube", "a green cone on a red mug", "a portrait of a person"],
        kinds=["thing", "thing", "pair", "head"],
    )
    torch.manual_seed(0)
    return ClipRecipe(
        load("tiny").tokenizer, shards, shards, torch.device("cpu"), num_contrasts=num_contrasts
    )


def test_a_picture_chooses_among_wrong_captions_of_its_own() -> None:
    """The loss, from its definition; the last caption says nothing that could be wrong."""
    recipe = _recipe(3)
    assert recipe.num_wrong.tolist()[:3] == [12, 12, 12]
    assert recipe.num_wrong[3] == 0
    generator = torch.Generator().manual_seed(1)
    rows, image = (
        torch.arange(4),
        torch.nn.functional.normalize(torch.randn(4, 128, generator=generator), dim=-1),
    )
    with torch.no_grad():
        logits = recipe._wrong_logits(rows, image, torch.Generator().manual_seed(2))
        drawn = (torch.rand(4, 3, generator=torch.Generator().manual_seed(2)) * 12).long()
        for row in range(3):
            text = recipe._embed_tokens(recipe.wrong[row, drawn[row]].long())
            expected = text @ image[row] / 0.07
            assert torch.allclose(logits[row], expected, atol=1e-4)
    assert bool((logits[3] == -1e4).all())
