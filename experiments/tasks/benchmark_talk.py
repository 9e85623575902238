"""Talking portraits against ground truth: people, voices and sentences that training never met."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from avatar.audio import AudioClip
from avatar.audio_features import LogMelConfig
from avatar.face import FaceBox, FaceError, find_face
from avatar.model import TalkingModel
from avatar.pipeline import animate
from diffusion.backbone import Backbone
from experiments.benchmark import circumstances, contact_sheet, talk_table
from experiments.benchmark.scoring import mean_scores
from experiments.benchmark.talk_frames import kept, made_folder, until
from experiments.benchmark.talk_measures import load_measures
from experiments.benchmark.talk_scores import TalkJudge
from experiments.benchmark.talk_wait import waited
from experiments.run.backbones import BackboneConfig, load_into
from experiments.run.files import write_json, write_text
from experiments.run.machine import peak_memory_mb
from experiments.run.run import Run
from experiments.speaking import Sitter, adapters_file, beside_backbone, load_talking
from experiments.tasks.configs.benchmark_talk import Config
from experiments.training.talking import portrait_box
from experiments.world.config import TalkingConfig
from experiments.world.espeak import check_voice
from experiments.world.talking import Clip
from experiments.world.talking_shards import TalkingClips, make_talking
from video.compose import stream_side_by_side
from video.encode import encode
from video.pixels import from_uint8, to_uint8
from video.sound import SoundTrack

_TRUTH = "truth"
_SHEET_FRAMES = 8


inputs = beside_backbone


def validate(config: Config) -> None:
    """Find out whether there is a voice before anything is made."""
    check_voice("speech", config.speech)


def run(config: Config, run: Run) -> None:
    """Make every clip, score it, and write talk.json, talk.md, talk.png and a few videos."""
    load_average = circumstances.load_average()
    backbone = load_into(run, config.backbone)
    run.generated_by_ai = True
    model = load_talking(backbone, config.talking, config.animate)
    reader, sync = load_measures(backbone, config.measures)
    judge = TalkJudge(reader=reader, sync=sync, backbone=backbone)
    folder, adapters = made_folder(run, backbone, config.talking)
    clips = _clips(config, run)
    boxes = [_found(clip) for clip in clips]
    made, about_found, seconds = _animate(config, run, backbone, model, clips, boxes, folder)
    with run.phase("score", len(clips)):
        entries = _score(config, run, judge, clips, made)
        found = _score_found(config, judge, clips, boxes, about_found, entries)
    with run.phase("wait"):
        waiting = waited(clips[0], _as_typed(config, backbone), folder / "waited")
    settings = config.animate
    result = {
        **circumstances.head(
            config, Config(task=config.task, backbone=BackboneConfig(name="tiny")), run, load_average
        ),
        "adapters": adapters,
        "animation": f"{settings.num_steps} steps, clips of {settings.clip_frames} frames, guidance "
        f"{settings.guidance_scale_reference:g} (person) and {settings.guidance_scale_audio:g} (sound), "
        f"seed {config.seed}",
        "num_frames": config.num_frames,
        "frames_per_second": sum(map(len, made)) / max(seconds, 1e-9),
        "waiting": waiting,
        "peak_memory_mb": peak_memory_mb(),
        "scores": mean_scores([entry["scores"] for entry in entries]),
        "controls": {
            name: mean_scores([entry["controls"][name] for entry in entries if name in entry["controls"]])
            for name in talk_table.CONTROLS
            if any(name in entry["controls"] for entry in entries)
        },
        "found": found,
        "clips": entries,
    }
    with run.phase("write"):
        run.metrics.update(
            {name: result[name] for name in ("scores", "found", "controls", "frames_per_second", "waiting")}
        )
        write_json(run.artefact("talk.json", kind="table"), result)
        write_text(run.artefact("talk.md", kind="table"), talk_table.markdown(result))
        _draw(config, run, clips, made, entries)
    run.say(talk_table.summary(result))


def _as_typed(config: Config, backbone: Backbone) -> list[str]:
    """The settings that make `talk/quickstart` speak as this benchmark does."""
    given = {
        "backbone": config.backbone.name,
        "backbone.dtype": config.backbone.dtype,
        "backbone.offline": config.backbone.offline,
        "backbone.revision": config.backbone.revision,
        "talking": adapters_file(backbone, config.talking),
        "seed": config.seed,
        "device": config.device,
        "threads": config.threads,
        **{f"animate.{name}": value for name, value in asdict(config.animate).items()},
    }
    return [f"{name}={'null' if value is None else value}" for name, value in given.items()]


def _clips(config: Config, run: Run) -> list[Clip]:
    wanted = TalkingConfig(
        num_clips=config.num_clips, clips_per_shard=1, num_frames=config.num_frames, held_out=True,
        speech=config.speech, wordless=0.0, seed=config.seed,
    )  # fmt: skip
    folder = run.folder / _TRUTH
    if config.overwrite and folder.is_dir():
        shutil.rmtree(folder)
    making = make_talking(folder, wanted, workers=config.workers)
    return list(TalkingClips(run.collect("truth", making, wanted.num_shards)))


def _found(clip: Clip) -> FaceBox | None:
    """The face box that is found in the portrait."""
    try:
        return find_face(from_uint8(clip.portrait), face="best")
    except FaceError:
        return None


def _animate(
    config: Config,
    run: Run,
    backbone: Backbone,
    model: TalkingModel,
    clips: list[Clip],
    boxes: list[FaceBox | None],
    folder: Path,
) -> tuple[list[Tensor], dict[int, Tensor], float]:
    """Frames [F, 3, S, S] uint8 of every clip's window, by index those of some clips about the face that was found,
    and the seconds that the first take; kept ones are read back."""
    made, about_found, seconds = [], {}, 0.0
    again = [index for index, box in enumerate(boxes[: config.num_found]) if box is not None]
    with run.phase("animate", len(clips) + len(again)):
        for index, clip in enumerate(clips):
            window = slice(clip.first_frame, clip.first_frame + config.num_frames)
            make = partial(_frames, config, run, backbone, model, clip, index)
            frames, spent = kept(folder / f"{index:04d}.safetensors", make)
            seconds += spent * config.num_frames / len(frames)
            made.append(frames[window])
            run.display.update(index + 1, {})
        for index in again:
            clip = clips[index]
            window = slice(clip.first_frame, clip.first_frame + config.num_frames)
            make = partial(_frames, config, run, backbone, model, clip, index, boxes[index])
            about_found[index] = kept(folder / f"{index:04d}-found.safetensors", make)[0][window]
            run.display.update(len(clips) + len(about_found), {})
    return made, about_found, seconds


def _frames(
    config: Config,
    run: Run,
    backbone: Backbone,
    model: TalkingModel,
    clip: Clip,
    index: int,
    found: FaceBox | None = None,
) -> Iterator[Tensor]:
    """About the true face the portrait speaks as it is; about one that was found its crop does, and is put back."""
    portrait = from_uint8(clip.portrait)
    sitter = Sitter(picture=portrait, box=found or portrait_box(clip.portrait_landmarks))
    size = backbone.image_size
    features = LogMelConfig().build().of(AudioClip(clip.audio), Fraction(clip.fps))
    made = animate(
        model, backbone, sitter.face(size) if found else sitter.whole(size), features,
        fps=Fraction(clip.fps), generators=lambda name: run.generator(f"{index}/{name}"), config=config.animate,
    )  # fmt: skip
    # What comes after the window has no truth to be held against.
    for frames in until(made, clip.first_frame + config.num_frames):
        yield torch.stack([_put_back(sitter, frame) for frame in frames]) if found else frames


def _put_back(sitter: Sitter, frame: Tensor) -> Tensor:
    """A crop [3, S, S] uint8 in its picture, uint8."""
    return to_uint8(sitter.crop.paste(from_uint8(frame), sitter.picture))


def _score(
    config: Config, run: Run, judge: TalkJudge, clips: list[Clip], made: list[Tensor]
) -> list[dict[str, Any]]:
    frames = [from_uint8(each) for each in made]
    tracks = [judge.mouths(each, clip) for each, clip in zip(frames, clips, strict=True)]
    entries = []
    for index, clip in enumerate(clips):
        other = (index + 1) % len(clips)
        step = config.animate.clip_frames
        joins = [i for i in range(1, config.num_frames) if (clip.first_frame + i) % step == 0]
        portrait = from_uint8(clip.portrait).expand(config.num_frames, -1, -1, -1)
        controls = {
            "oracle": judge.score(from_uint8(clip.images), clip),
            "static": judge.score(portrait, clip),
        }
        if other != index:
            shuffled = judge.score(frames[index], clip, track=tracks[other])
            controls["shuffled"] = {
                name: shuffled[name] for name in ("r", "error", "in_step", "closures") if name in shuffled
            }
        entries.append(
            {
                "caption": clip.caption, "text": clip.text, "voice": clip.voice,
                "scores": judge.score(frames[index], clip, track=tracks[index], joins=joins),
                "controls": controls,
            }
        )  # fmt: skip
        run.display.update(index + 1, {})
    return entries


def _score_found(
    config: Config,
    judge: TalkJudge,
    clips: list[Clip],
    boxes: list[FaceBox | None],
    about_found: dict[int, Tensor],
    entries: list[dict[str, Any]],
) -> dict[str, Any]:
    """How well faces are found, what is made about them, and the same clips about their true faces."""
    for entry, clip, box in zip(entries, clips, boxes, strict=True):
        true = portrait_box(clip.portrait_landmarks)
        entry["box_overlap"] = 0.0 if box is None else round(true.overlap(box), 4)
    for index, frames in about_found.items():
        entries[index]["found"] = judge.score(from_uint8(frames), clips[index])
    overlaps = sorted(entry["box_overlap"] for entry in entries)
    return {
        "faces": sum(box is not None for box in boxes),
        "overlap_median": median(overlaps),
        "overlap_worst": overlaps[0],
        "clips": len(about_found),
        "scores": mean_scores([entries[index]["found"] for index in about_found]),
        "true_face": mean_scores([entries[index]["scores"] for index in about_found]),
    }


def _draw(
    config: Config, run: Run, clips: list[Clip], made: list[Tensor], entries: list[dict[str, Any]]
) -> None:
    rows = []
    chosen = torch.linspace(0, config.num_frames - 1, min(_SHEET_FRAMES, config.num_frames)).round().long()
    for clip, frames, entry in zip(clips, made, entries, strict=True):
        rows.append(
            contact_sheet.Row(
                caption=clip.text or clip.caption,
                line=f"r {entry['scores'].get('r', float('nan')):.2f}",
                blocks=(from_uint8(clip.images[chosen]), from_uint8(frames[chosen])),
            )
        )
    contact_sheet.save(rows, run.artefact("talk.png", kind="image"), titles=("truth", "made"))
    for index in range(min(config.num_videos, len(clips))):
        clip = clips[index]
        both = [(from_uint8(picture) for picture in pictures) for pictures in (clip.images, made[index])]
        start = round(clip.first_frame / clip.fps * 16_000)
        encode(
            stream_side_by_side(both, captions=("truth", "made"), gap=2),
            run.artefact(f"clip_{index:02d}.mp4", kind="video"),
            fps=clip.fps,
            metadata=run.media_tags(),
            audio=SoundTrack(16_000, [clip.audio[start:].contiguous()]),
        )
