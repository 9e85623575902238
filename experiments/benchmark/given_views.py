"""What a backbone makes of pictures that it is given: the other views of a thing without a word about it, and its depth
and its normals beside its true colours. Measured against the world's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion.backbone import Backbone
from diffusion.domains import DOMAINS
from diffusion.samplers import sample_views
from experiments.benchmark.cases import Case
from experiments.benchmark.contact_sheet import Row
from experiments.benchmark.gathered_pictures import Album
from experiments.benchmark.table import Columns, cell, escape, table
from experiments.world import scene_from_caption
from gen3d.cameras import Cameras, ring
from gen3d.domain_pictures import depth_of, depth_picture, normals_of, normals_picture
from gen3d.metrics import psnr

COLUMNS: Columns = {
    "others_db": ("other views, dB", 1),
    "repeated_db": ("the given one for each, dB", 1),
    "depth_error": ("depth error", 3),
    "depth_missing": ("depth missing", None),
    "normals_deg": ("normals, degrees", 1),
}
EXPLAINED = (
    (
        "Other views: one picture of the world, 20 degrees from the front, is given without a caption, and seven views "
        "evenly around are sampled beside it, without guidance; PSNR of the seven. For each: that of the given picture "
        "in their places, a control."
    ),
    (
        "Depth, normals: sampled without guidance beside true pictures by the same cameras, with the caption. Error of "
        "distances, a mean over the pixels where both have one, in units of the radius of the sphere about the object; "
        "the share of the object's pixels where none was drawn; the median angle between drawn and true normals."
    ),
)
_GROUPS = ("things", "heads")
_NUM_VIEWS, _AZIMUTH_DEG = 8, 20.0
_COVERED = 0.99  # of a pixel, for its depth and its normal to be the object's alone


def chosen(cases: Sequence[Case], number: int) -> list[int]:
    """Which captions are measured: the first things, and the first heads."""
    members = [[case.index for case in cases if case.group == group] for group in _GROUPS]
    return [index for each in members for index in each[:number]]


def gather(
    album: Album,
    index: int,
    prompt: str,
    said: str,
    backbone: Backbone,
    generator: torch.Generator,
    num_steps: int,
) -> None:
    """Sample all that is measured of one caption, and render the truth of it. said: the prompt as the model is told."""
    scene, size = scene_from_caption(prompt), backbone.image_size
    around = ring(_NUM_VIEWS, azimuth_deg=_AZIMUTH_DEG)
    truth = scene.render(around, size).images.clamp(0.0, 1.0)
    album.put("true_others", index, truth)
    album.put(
        "others",
        index,
        _beside(backbone, "", around, truth, torch.zeros(_NUM_VIEWS), 1, generator, num_steps),
    )
    if backbone.domains == ("color",):
        return
    cameras = ring(backbone.num_views)
    seen = scene.render(cameras, size)
    there = seen.mask > _COVERED
    album.put_depth("true_depth", index, torch.where(there, seen.depth, 0.0))
    album.put_depth("true_normals", index, torch.where(there, seen.normals, 0.0))
    count = len(cameras)
    for domain in backbone.domains[1:]:
        twice = Cameras(c2w=cameras.c2w.repeat(2, 1, 1), fovy_deg=cameras.fovy_deg.repeat(2))
        shown = torch.arange(2 * count) // count * DOMAINS.index(domain)
        pictures = seen.images.clamp(0.0, 1.0).repeat(2, 1, 1, 1)
        made = _beside(backbone, said, twice, pictures, shown, count, generator, num_steps)
        album.put(f"drawn_{domain}", index, made[count:])


def _beside(
    backbone: Backbone,
    words: str,
    cameras: Cameras,
    images: Tensor,
    domains: Tensor,
    given: int,
    generator: torch.Generator,
    num_steps: int,
) -> Tensor:
    """Pictures [V, 3, S, S] of domains [V], of which the first ones are given."""
    made = sample_views(
        backbone,
        [words],
        cameras.c2w[None],
        generator=generator,
        guidance_scale=1.0,
        num_steps=num_steps,
        domains=domains[None] if bool(domains.any()) else None,
        init_images=images[None],
        fixed=(torch.arange(len(images)) < given)[None],
    )
    return made[0].float().cpu()


def score(album: Album, index: int, num_views: int) -> dict[str, float | None]:
    """The scores of one caption, by the keys of `COLUMNS`."""
    truth, made = album.get("true_others", index), album.get("others", index)
    scores: dict[str, float | None] = {
        "others_db": psnr(made[1:], truth[1:]),
        "repeated_db": psnr(truth[:1].expand_as(truth[1:]), truth[1:]),
    }
    if album.has("drawn_depth", index):
        true = album.get("true_depth", index)
        drawn = depth_of(album.get("drawn_depth", index), ring(num_views))
        there, both = true > 0, (true > 0) & (drawn > 0)
        scores["depth_error"] = float((drawn - true)[both].abs().mean()) if bool(both.any()) else None
        scores["depth_missing"] = 1.0 - float(both.sum() / there.sum())
    if album.has("drawn_normals", index):
        true = album.get("true_normals", index)
        cosines = (normals_of(album.get("drawn_normals", index)) * true).sum(dim=1)[true.abs().sum(dim=1) > 0]
        scores["normals_deg"] = float(torch.rad2deg(torch.acos(cosines.clamp(-1.0, 1.0))).median())
    return scores


def result(cases: Sequence[Case], rows: Sequence[int], album: Album, num_views: int) -> dict[str, Any]:
    """What tiny.json holds of it: each caption, and means of both groups and of all."""
    captions = [
        {"caption": cases[row].caption, "group": cases[row].group, "scores": score(album, row, num_views)}
        for row in rows
    ]
    groups = {"all": captions} | {
        group: [each for each in captions if each["group"] == group] for group in _GROUPS
    }
    return {
        "means": {
            name: {"count": len(each), "scores": _means(each)} for name, each in groups.items() if each
        },
        "captions": captions,
    }


def _means(captions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found = {
        key: [each["scores"][key] for each in captions if each["scores"].get(key) is not None]
        for key in COLUMNS
    }
    return {key: sum(values) / len(values) for key, values in found.items() if values}


def markdown(found: Mapping[str, Any]) -> list[str]:
    """Its part of tiny.md."""
    shown = {key: column for key, column in COLUMNS.items() if key in found["means"]["all"]["scores"]}

    def row(title: str, scores: Mapping[str, Any]) -> list[str]:
        return [title, *(cell(scores.get(key), digits) for key, (_, digits) in shown.items())]

    rows = [row(f"**{name}** ({each['count']})", each["scores"]) for name, each in found["means"].items()]
    rows += [row(escape(each["caption"]), each["scores"]) for each in found["captions"]]
    return [
        "## Given views",
        "",
        *(f"- {text}" for text in EXPLAINED),
        "",
        *table(["", *(title for title, _ in shown.values())], rows),
        "",
    ]


def sheets(
    cases: Sequence[Case], found: Mapping[str, Any], rows: Sequence[int], album: Album
) -> dict[str, list[Row]]:
    """Rows of contact sheets, the truth beside what was made: of "given" views, of "depth" and of "normals"."""
    drawn: dict[str, list[Row]] = {}
    for index, entry in zip(rows, found["captions"], strict=True):
        scores = entry["scores"]
        views = album.get("true_others", index), album.get("others", index)
        pairs: dict[str, tuple[tuple[Tensor, Tensor], tuple[str, ...]]] = {"given": (views, ("others_db",))}
        if album.has("drawn_depth", index):
            true = album.get("true_depth", index)
            picture = depth_picture(true, (true > 0).float(), ring(len(true)))
            pairs["depth"] = ((picture, album.get("drawn_depth", index)), ("depth_error", "depth_missing"))
        if album.has("drawn_normals", index):
            true = album.get("true_normals", index)
            picture = normals_picture(true, torch.ones_like(true[:, :1]))
            pairs["normals"] = ((picture, album.get("drawn_normals", index)), ("normals_deg",))
        for name, (blocks, keys) in pairs.items():
            line = ", ".join(f"{COLUMNS[key][0]} {cell(scores[key], COLUMNS[key][1])}" for key in keys)
            drawn.setdefault(name, []).append(Row(caption=cases[index].caption, line=line, blocks=blocks))
    return drawn
