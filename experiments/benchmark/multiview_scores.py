"""The scores of pictures of one object from several sides, before there is any 3D.

Samples and controls (the world's own pictures, the samples of another caption) go through this very code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.benchmark.frechet import frechet_distance, gaussian
from experiments.benchmark.readback import Reader, questions, read_back
from experiments.benchmark.reprojection import silhouette_iou, view_difference
from experiments.benchmark.retrieval import retrieved
from experiments.benchmark.sharpness import sharpness
from experiments.world import scene_from_caption
from experiments.world.captions import BACKGROUNDS, split_background
from gen3d.cameras import Cameras
from gen3d.views import Views


@dataclass(frozen=True, kw_only=True, slots=True)
class TruePictures:
    """What the world shows: images [V, 3, S, S] sRGB in [0, 1], depth [V, S, S] along the ray, 0 where it hits nothing
    with at least half of the pixel. exchanged: images of a pair with its two colours exchanged."""

    images: Tensor
    depth: Tensor
    exchanged: Tensor | None = None


def true_pictures(prompt: str, cameras: Cameras, size: int, seed: int | None = None) -> TruePictures:
    """The world's pictures of a prompt in canonical proportions, or in those of `seed`; light from one side."""
    rendering = scene_from_caption(prompt, seed).render(cameras, size)
    depth = torch.where(rendering.mask > 0.5, rendering.depth, 0.0)
    return TruePictures(images=rendering.images.clamp(0.0, 1.0), depth=depth[:, 0])


class Judge:
    """Scores pictures of the prompts of a benchmark. cameras: of all pictures."""

    def __init__(self, reader: Reader, prompts: Sequence[str], cameras: Cameras) -> None:
        self.reader, self.prompts, self.cameras = reader, prompts, cameras
        self.asked = [questions(prompt) for prompt in prompts]
        self.captions = reader.captions(prompts)

    def score(
        self, index: int, images: Tensor, truth: TruePictures, others: Tensor | None = None
    ) -> tuple[dict[str, float | bool | None], Tensor]:
        """Scores of images [V, 3, S, S] in [0, 1] as pictures of prompt `index`, and their embeddings [V, D].

        others: what `view_difference` takes for the next views.

        thing, thing_top5, color, colors_bound, things_bound, places: see `readback.questions`; shares of the views.
        colors_bound_pixels: share of the views that are nearer, in mean squared error, to the truth than to the
            truth with its colours exchanged; asks no CLIP.
        r_precision: whether the prompt is the nearest of all prompts to the mean embedding of the views.
        background: whether theirs is nearest, of the world's backgrounds, to the one asked for.
        silhouette_iou: of the true silhouettes and those that `Views` finds, as reconstruction does.
        view_difference: between adjacent views, see `reprojection`.
        sharpness: over that of the true pictures.
        """
        embeddings = self.reader.pictures(images)
        mean = F.normalize(embeddings.mean(0), dim=-1)
        seen = Views.from_images(images, self.cameras)
        scores: dict[str, float | bool | None] = {
            **read_back(self.reader, embeddings, self.asked[index]),
            "r_precision": retrieved(mean, self.captions, index),
            "background": _background(seen) == split_background(self.prompts[index])[1],
            "silhouette_iou": silhouette_iou(truth.depth, seen.masks),
            "view_difference": view_difference(truth.depth, self.cameras, images, others),
            "sharpness": sharpness(images, truth.images),
        }
        if truth.exchanged is not None:
            right, wrong = (_squared_error(images, each) for each in (truth.images, truth.exchanged))
            scores["colors_bound_pixels"] = float((right < wrong).float().mean())
        return scores, embeddings


def _background(seen: Views) -> str:
    """The name of the world's background that the pictures' own is nearest to."""
    names = list(BACKGROUNDS)
    distances = (torch.tensor([BACKGROUNDS[name] for name in names]) - seen.backgrounds[0]).norm(dim=-1)
    return names[int(distances.argmin())]


def _squared_error(images: Tensor, target: Tensor) -> Tensor:
    """[V] of pictures [V, 3, S, S]."""
    return (images - target).square().flatten(1).mean(1)


def frechet_scores(
    groups: Mapping[str, Sequence[int]], embeddings: Mapping[str, Mapping[int, Tensor]], reference: str
) -> dict[str, dict[str, float]]:
    """Frechet distances of every set of pictures to the set `reference`, by group and then by set.

    groups: indices of the captions of each. embeddings: set -> caption's index -> [V, D]; a set may lack captions.
    """
    found: dict[str, dict[str, float]] = {}
    for group, members in groups.items():
        true = gaussian(torch.cat([embeddings[reference][index] for index in members]))
        for name, own in embeddings.items():
            rows = [own[index] for index in members if index in own]
            if rows and name != reference and len(torch.cat(rows)) > 1:
                found.setdefault(group, {})[name] = frechet_distance(gaussian(torch.cat(rows)), true)
    return found
