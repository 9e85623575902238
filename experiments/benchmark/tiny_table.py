"""tiny.md: the report of a multiview backbone without any 3D, for people. The result is what goes into tiny.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.benchmark import given_views, sharpness
from experiments.benchmark.table import Columns, cell, escape, group_rows, heading, table

COLUMNS: Columns = {
    "thing": ("right thing", None),
    "thing_top5": ("among 5", None),
    "color": ("right colour", None),
    "colors_bound": ("colours bound", None),
    "colors_bound_pixels": ("the same, by pixels", None),
    "things_bound": ("things bound", None),
    "places": ("places", None),
    "r_precision": ("R-precision", None),
    "background": ("background", None),
    "silhouette_iou": ("silhouette IoU", 3),
    "view_difference": ("view difference", 3),
    "sharpness": ("sharpness", 2),
    "frechet": ("Frechet", 3),
}
CONTROLS = {
    "truth": "the world's pictures",
    "truth_vae": "the world's, through the VAE",
    "varied": "the world's, other proportions",
    "other": "the next caption's samples",
    "untrained": "an untrained UNet",
}
_EXPLAINED = (
    (
        "Right thing, right colour: read back by the CLIP, a share of the views. One thing: among all things times all "
        "colours of the vocabulary, with the other of the two marginalised. A pair: each such word among its "
        "alternatives, the rest of the caption given. A head: each colour that its caption names."
    ),
    (
        "Bound, places: the right caption against the one with the two colours, things, or both exchanged; chance is "
        "50 %. By pixels: nearer to the world's picture than to the world's picture with the colours exchanged."
    ),
    "R-precision: of all captions here, an object's own is the nearest to its views.",
    "Background: of the world's nine, it is nearest to the one asked for.",
    "Silhouette IoU: with those of the canonical shape.",
    (
        "View difference: mean absolute difference of colour in [0, 1] between adjacent views, where both see the same "
        "point of the canonical surface; lower is better. Its floor is not 0, because shading depends on the view. For "
        "the next caption's samples, one of the two views is this caption's own."
    ),
    sharpness.EXPLAINED,
    (
        "Frechet: distance of the pictures' CLIP embeddings to those of the world's. It is no Inception FID, and too "
        "large for few pictures: compare only where n is the same."
    ),
    (
        "The world's own pictures are the ceiling of what the CLIP says. A column in which they are near chance says "
        "nothing about samples."
    ),
)


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    vae, retrieval = result["vae"], result["retrieval"]
    kinds = [key.removeprefix("psnr_db_") for key in vae["scores"] if key.startswith("psnr_db_")]
    size = vae["latent_size"]
    keys = ("psnr_db", *(f"psnr_db_{kind}" for kind in kinds))
    psnr = [
        ["**VAE**", *(cell(vae["scores"][key], 1) for key in keys)],
        [
            f"shrunk to the {size} x {size} pixels of the latents and enlarged",
            *(cell(vae["shrunk"][key], 1) for key in keys),
        ],
    ]
    found = [
        ["**CLIP**", cell(retrieval["top1"], None), cell(retrieval["top5"], None)],
        ["chance", cell(retrieval["chance"], None), cell(min(5 * retrieval["chance"], 1.0), None)],
    ]
    captions = [
        [
            escape(each["caption"]),
            *(cell(each["scores"].get(key), digits) for key, (_, digits) in _of_captions()),
        ]
        for each in result["captions"]
    ]
    lines = [
        *heading(result),
        f"- weights: SHA-256 {result['backbone']['weights_sha256'][:16]}...",
        f"- sampling: {result['sampling']}",
        f"- CLIP: {result['clip']}",
        f"- prompts cut, because the text encoder reads no more: {result['cut']} of {len(result['captions'])}",
        f"- seconds: {', '.join(f'{name} {value:.0f}' for name, value in result['seconds'].items())}",
        "",
        (
            "Everything is measured on held-out captions. The VAE and caption retrieval use "
            f"{result['pictures']} pictures of the world in varied proportions, light and backgrounds, as in training."
        ),
        "",
        "## VAE",
        "",
        "PSNR of reconstructions in dB, means over pictures.",
        "",
        *table(["", "all", *kinds], psnr),
        "",
        "## CLIP",
        "",
        f"A picture's own caption among {retrieval['captions']:.0f}.",
        "",
        *table(["", "nearest", "among 5"], found),
        "",
        "## Views from captions",
        "",
        *(f"- {text}" for text in _EXPLAINED),
        "",
        *table(*group_rows(result, COLUMNS, CONTROLS, {})),
        "",
        f"The untrained UNet drew {result['untrained_captions']} captions, too few for a Frechet distance to compare.",
        "",
        *(given_views.markdown(result["given"]) if result.get("given") else []),
        "## Captions",
        "",
        *table(["caption", *(title for _, (title, _) in _of_captions())], captions),
        "",
    ]
    return "\n".join(lines)


def _of_captions() -> list[tuple[str, tuple[str, int | None]]]:
    """The columns that one caption has; Frechet distances are of sets."""
    return [(key, column) for key, column in COLUMNS.items() if key != "frechet"]


def line(scores: Mapping[str, Any]) -> str:
    """A few scores of one caption, to stand beside its pictures."""
    shown = ("thing", "color", "colors_bound_pixels", "silhouette_iou", "view_difference")
    titles = {"colors_bound_pixels": "colours bound"}
    return ", ".join(
        f"{titles.get(key, COLUMNS[key][0])} {cell(scores[key], COLUMNS[key][1])}"
        for key in shown
        if scores.get(key) is not None
    )


def summary(result: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    shown = {
        "thing": "right thing",
        "color": "colour",
        "colors_bound": "bound",
        "colors_bound_pixels": "by pixels",
        "r_precision": "R-precision",
        "silhouette_iou": "silhouette",
        "view_difference": "difference",
        "frechet": "Frechet",
    }
    vae, retrieval = result["vae"]["scores"], result["retrieval"]
    lines = [
        (
            f"VAE {vae['psnr_db']:.1f} dB; caption retrieval among {retrieval['captions']:.0f}: "
            f"top-1 {cell(retrieval['top1'], None)}, top-5 {cell(retrieval['top5'], None)}"
        ),
        f"{'':14} {'n':>3} " + " ".join(f"{title:>11}" for title in shown.values()),
    ]
    for name, group in result["groups"].items():
        rows = [(name, str(group["count"]), group["scores"])]
        rows += [(f"  {key}", "", group["controls"][key]) for key in CONTROLS if key in group["controls"]]
        for title, count, scores in rows:
            values = " ".join(f"{cell(scores.get(key), COLUMNS[key][1]):>11}" for key in shown)
            lines.append(f"{title:14} {count:>3} {values}")
    if result.get("given"):
        means = result["given"]["means"]["all"]["scores"]
        shown_here = (
            f"{given_views.COLUMNS[key][0]} {cell(means[key], given_views.COLUMNS[key][1])}" for key in means
        )
        lines.append(f"given views: {'; '.join(shown_here)}")
    return "\n".join(lines)
