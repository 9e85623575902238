"""A multiview backbone against ground truth, without any 3D: its VAE, its CLIP, its views of held-out captions."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion.backbone import Backbone
from diffusion.errors import BackboneError
from diffusion.samplers import sample_views
from experiments.benchmark import circumstances, contact_sheet, given_views, tiny_table, towers
from experiments.benchmark.cases import GROUPS, Case, default_cases
from experiments.benchmark.gathered_pictures import Album
from experiments.benchmark.multiview_scores import Judge, TruePictures, frechet_scores, true_pictures
from experiments.benchmark.readback import Reader, colors_exchanged
from experiments.benchmark.summary import summarise
from experiments.benchmark.untrained import untrained
from experiments.errors import UserError
from experiments.run.backbones import BackboneConfig, describe, load_into
from experiments.run.files import write_json, write_text
from experiments.run.run import Run
from experiments.tasks.configs.benchmark_tiny import Config
from experiments.world.config import DatasetConfig
from experiments.world.dataset import Shards, load_shards, make_dataset
from gen3d.cameras import Cameras, ring
from gen3d.prompts import Said, on_background, say

_PICTURES = "pictures"
# The seed of the control's proportions; any number but None.
_VARIED_SEED = 1


def validate(config: Config) -> None:
    """Find out that there are not so many held-out captions before anything is written."""
    default_cases(config.num_things, config.num_pairs, config.num_heads)


def run(config: Config, run: Run) -> None:
    """Measure, and write tiny.json, tiny.md and a grid of pictures for each kind of caption."""
    load_average = circumstances.load_average()
    cases = default_cases(config.num_things, config.num_pairs, config.num_heads)
    prompts = [on_background(case.caption, config.background) for case in cases]
    backbone = load_into(run, config.backbone)
    run.generated_by_ai = True
    if not backbone.has_camera:
        raise UserError(
            f"backbone {backbone.name!r} has no cameras, so its views cannot be held against the truth; "
            "choose a multiview backbone such as tiny"
        )
    if config.num_given and backbone.num_views == 1:
        raise UserError(
            f"views of backbone {backbone.name!r} do not see each other, so that none can be given; give num_given=0"
        )
    clip, about_clip = _load_clip(config, run, backbone)
    reader = Reader(clip)
    pictures = _pictures(config, run, backbone.image_size)
    album = _gather(config, run, backbone, cases, prompts)
    with run.phase("score", len(cases)):
        vae, retrieval = _measure_towers(config, backbone, reader, pictures)
        judge = Judge(reader, prompts, ring(backbone.num_views))
        scored, embeddings = _score(run, judge, cases, album, backbone)
        groups = summarise(scored)
        _add_frechet(groups, cases, embeddings)
        rows = given_views.chosen(cases, config.num_given)
        given = given_views.result(cases, rows, album, backbone.num_views) if rows else None
    result = {
        **circumstances.head(
            config, Config(task=config.task, backbone=BackboneConfig(name="tiny")), run, load_average
        ),
        "seconds": {name: round(value, 1) for name, value in run.seconds.items()},
        "clip": about_clip,
        "sampling": f"{config.sampling.num_steps} steps, guidance {config.sampling.guidance_scale:g}, "
        f"{backbone.num_views} views, background {config.background}, seed {config.seed}",
        "cut": sum(
            _said(config, backbone, case).text != prompt for case, prompt in zip(cases, prompts, strict=True)
        ),
        "pictures": len(pictures),
        "vae": vae,
        "retrieval": retrieval,
        "untrained_captions": len(_drawn_untrained(config, cases)),
        "groups": groups,
        "captions": scored,
        "given": given,
    }
    with run.phase("write"):
        run.metrics.update({"vae": vae["scores"], "retrieval": retrieval})
        run.metrics.update(
            {name: {**group["scores"], "controls": group["controls"]} for name, group in groups.items()}
        )
        if given is not None:
            run.metrics["given"] = given["means"]
        write_json(run.artefact("tiny.json", kind="table"), result)
        write_text(run.artefact("tiny.md", kind="table"), tiny_table.markdown(result))
        _draw(run, cases, scored, album)
        for name, sheet in (given_views.sheets(cases, given, rows, album) if given else {}).items():
            contact_sheet.save(sheet, run.artefact(f"{name}.png", kind="image"), titles=("truth", "made"))
    run.say(tiny_table.summary(result))


def _load_clip(config: Config, run: Run, backbone: Backbone) -> tuple[Backbone, str]:
    """The backbone with the CLIP towers, and what to say about it."""
    clip, wanted = backbone, config.backbone
    if config.clip is not None:
        wanted = BackboneConfig(name=config.clip, offline=config.backbone.offline)
        clip = wanted.build(run.device)
    try:
        clip.embed_text(["a"])
        clip.embed_image(torch.zeros(1, 3, 8, 8, device=clip.device))
    except BackboneError as error:
        raise UserError(f"{error}; give clip=tiny, or another backbone with both CLIP towers") from None
    about = describe(clip, wanted)
    return clip, f"that of {about['name']}, revision {about['revision'] or 'unknown'}"


def _pictures(config: Config, run: Run, size: int) -> Shards:
    """Pictures of held-out scenes: those that training measures itself on, the first view of each."""
    folder = run.folder / _PICTURES
    if config.overwrite and folder.is_dir():
        shutil.rmtree(folder)
    wanted = DatasetConfig(
        num_scenes=config.num_pictures, num_views=1, size=size, held_out=True, scenes_per_shard=8
    )
    making = make_dataset(folder, wanted, workers=config.workers)
    return load_shards(run.collect("pictures", making, wanted.num_shards))


def _drawn_untrained(config: Config, cases: Sequence[Case]) -> list[int]:
    """Which captions the untrained UNet draws: the first of each group."""
    groups = [[case.index for case in cases if case.group == group] for group in GROUPS]
    return [index for members in groups for index in members[: config.num_untrained]]


def _gather(
    config: Config, run: Run, backbone: Backbone, cases: Sequence[Case], prompts: Sequence[str]
) -> Album:
    """The world's pictures of every prompt ("truth", its "depth", "exchanged" colours, "varied" proportions), those
    that the backbone draws ("samples"), those that it draws "untrained", and what it makes of those that are "given".
    Goes on from the checkpoint."""
    everything, few = [case.index for case in cases], _drawn_untrained(config, cases)
    jobs = [("truth", [index]) for index in everything]
    for name, rows in (("samples", everything), ("untrained", few)):
        jobs += [(name, rows[i : i + config.batch_size]) for i in range(0, len(rows), config.batch_size)]
    jobs += [("given", [index]) for index in given_views.chosen(cases, config.num_given)]
    names = [name for name, _ in jobs]
    album, done = Album(run.resumed.tensors if run.resumed else None), run.resumed.step if run.resumed else 0
    cameras = ring(backbone.num_views)
    denoisers = {"samples": backbone, "untrained": untrained(backbone, config.seed)}
    for step, (name, rows) in enumerate(jobs[done:], start=done):
        first = names.index(name)
        if step in (done, first):
            run.begin_phase(name, names.count(name), step - first)
        generator = run.generator(f"{name} {rows[0]}")
        if name == "truth":
            _render_world(album, rows[0], prompts[rows[0]], cameras, backbone.image_size)
        elif name == "given":
            told = _said(config, backbone, cases[rows[0]]).text
            steps = config.sampling.num_steps
            given_views.gather(album, rows[0], prompts[rows[0]], told, backbone, generator, steps)
        else:
            said = [_said(config, backbone, cases[row]).text for row in rows]
            drawn = _sample(config, denoisers[name], said, cameras, generator)
            for row, images in zip(rows, drawn, strict=True):
                album.put(name, row, images)
        run.display.update(step - first + 1, {})
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == len(jobs):
            run.save(step + 1, album.tensors)
    run.end_phase()
    return album


def _said(config: Config, backbone: Backbone, case: Case) -> Said:
    """What the model is told of a caption."""
    background = config.background
    return say(case.caption, backbone.shorten, background=background, num_views=backbone.num_views)


def _render_world(album: Album, index: int, prompt: str, cameras: Cameras, size: int) -> None:
    truth = true_pictures(prompt, cameras, size)
    album.put("truth", index, truth.images)
    album.put_depth("depth", index, truth.depth)
    album.put("varied", index, true_pictures(prompt, cameras, size, _VARIED_SEED).images)
    exchanged = colors_exchanged(prompt)
    if exchanged is not None:
        album.put("exchanged", index, true_pictures(exchanged, cameras, size).images)


def _sample(
    config: Config, backbone: Backbone, prompts: list[str], cameras: Cameras, generator: torch.Generator
) -> Tensor:
    """[B, V, 3, S, S], one row a prompt."""
    return sample_views(
        backbone,
        prompts,
        cameras.c2w.expand(len(prompts), -1, -1, -1),
        generator=generator,
        guidance_scale=config.sampling.guidance_scale,
        guidance_rescale=config.sampling.guidance_rescale,
        num_steps=config.sampling.num_steps,
        negative_prompt=config.negative_prompt,
    )


def _measure_towers(
    config: Config, backbone: Backbone, reader: Reader, pictures: Shards
) -> tuple[dict[str, Any], dict[str, float]]:
    images, size = towers.first_pictures(pictures), backbone.image_size // backbone.downscale
    vae = {
        "scores": towers.reconstruction(towers.autoencode(backbone, images), pictures),
        "shrunk": towers.reconstruction(towers.shrunk(images, size), pictures),
        "latent_size": size,
    }
    return vae, towers.caption_retrieval(reader, pictures, config.num_captions)


def _score(
    run: Run, judge: Judge, cases: Sequence[Case], album: Album, backbone: Backbone
) -> tuple[list[dict[str, Any]], dict[str, dict[int, Tensor]]]:
    """An entry for every caption, controls included, and embeddings: set of pictures -> caption's index -> [V, D]."""
    following = _following(cases)
    embeddings: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)
    scored = []
    for case in cases:
        index = case.index
        truth = TruePictures(
            images=album.get("truth", index),
            depth=album.get("depth", index),
            exchanged=album.get("exchanged", index) if album.has("exchanged", index) else None,
        )
        sets = {
            name: album.get(name, index)
            for name in ("samples", "truth", "varied", "untrained")
            if album.has(name, index)
        }
        sets["truth_vae"] = towers.autoencode(backbone, truth.images)
        found = {}
        for name, images in sets.items():
            found[name], embeddings[name][index] = judge.score(index, images, truth)
        if following[index] != index:
            other = album.get("samples", following[index])
            found["other"], _ = judge.score(index, other, truth, others=sets["samples"])
        entry = {"index": index, "caption": case.caption, "group": case.group, "reason": "", "costs": {}}
        scored.append({**entry, "scores": found.pop("samples"), "controls": found})
        run.display.update(index + 1, {})
    return scored, dict(embeddings)


def _following(cases: Sequence[Case]) -> list[int]:
    """For each caption the next one of its group, the first after the last."""
    members = {group: [case.index for case in cases if case.group == group] for group in GROUPS}
    found = []
    for case in cases:
        own = members[case.group]
        found.append(own[(own.index(case.index) + 1) % len(own)])
    return found


def _add_frechet(
    groups: dict[str, Any], cases: Sequence[Case], embeddings: Mapping[str, Mapping[int, Tensor]]
) -> None:
    """Put Frechet distances to the truth, which only sets have, beside the means."""
    members = {name: [case.index for case in cases if name in ("all", case.group)] for name in groups}
    for group, distances in frechet_scores(members, embeddings, "truth").items():
        for name, distance in distances.items():
            of = groups[group]["scores"] if name == "samples" else groups[group]["controls"][name]
            of["frechet"] = distance


def _draw(run: Run, cases: Sequence[Case], scored: Sequence[dict[str, Any]], album: Album) -> None:
    """Samples beside the truth, a picture for each group."""
    rows: defaultdict[str, list[contact_sheet.Row]] = defaultdict(list)
    for case, entry in zip(cases, scored, strict=True):
        row = contact_sheet.Row(
            caption=case.caption,
            line=tiny_table.line(entry["scores"]),
            blocks=(album.get("truth", case.index), album.get("samples", case.index)),
        )
        rows[case.group].append(row)
    for group, each in rows.items():
        contact_sheet.save(each, run.artefact(f"{group}.png", kind="image"), titles=("truth", "samples"))
