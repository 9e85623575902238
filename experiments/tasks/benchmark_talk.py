"""Talking portraits against ground truth: people, voices and sentences that training never met."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avatar.audio import AudioClip
from avatar.audio_features import LogMelConfig
from avatar.model import TalkingModel
from avatar.pipeline import animate
from diffusion.backbone import Backbone
from experiments.benchmark import circumstances, contact_sheet, talk_table
from experiments.benchmark.scoring import mean_scores
from experiments.benchmark.talk_made import kept, load_measures, made_folder, until
from experiments.benchmark.talk_scores import TalkJudge
from experiments.errors import UserError
from experiments.run.backbones import BackboneConfig, load_into
from experiments.run.files import write_json, write_text
from experiments.run.report import peak_memory_mb
from experiments.run.run_dir import Run
from experiments.speaking import Sitter, load_talking
from experiments.tasks.configs.benchmark_talk import Config
from experiments.training.talking import portrait_box
from experiments.world.config import TalkingConfig
from experiments.world.espeak import espeak_available
from experiments.world.talking import Clip
from experiments.world.talking_shards import TalkingClips, make_talking
from video.compose import stream_side_by_side
from video.encode import encode
from video.sound import SoundTrack

_TRUTH = "truth"
_SHEET_FRAMES = 8


def validate(config: Config) -> None:
    """Find out whether there is a voice before anything is made."""
    if config.speech == "espeak" and not espeak_available():
        raise UserError(
            "speech=espeak needs the extra 'world' (pip install 'galatea[world]'); speech=formants babbles without it"
        )


def run(config: Config, run: Run) -> None:
    """Make every clip, score it, and write talk.json, talk.md, talk.png and a few videos."""
    load_average = circumstances.load_average()
    backbone = load_into(run, config.backbone)
    model = load_talking(backbone, config.talking)
    reader, sync = load_measures(backbone, config.measures)
    judge = TalkJudge(reader=reader, sync=sync, backbone=backbone)
    folder, adapters = made_folder(run, backbone, config.talking)
    clips = _clips(config, run)
    made, seconds = _animate(config, run, backbone, model, clips, folder)
    with run.stage("score", len(clips)):
        entries = _score(config, run, judge, clips, made)
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
        "peak_memory_mb": peak_memory_mb(),
        "scores": mean_scores([entry["scores"] for entry in entries]),
        "controls": {
            name: mean_scores([entry["controls"][name] for entry in entries if name in entry["controls"]])
            for name in talk_table.CONTROLS
            if any(name in entry["controls"] for entry in entries)
        },
        "clips": entries,
    }
    with run.stage("write"):
        run.metrics.update({name: result[name] for name in ("scores", "controls", "frames_per_second")})
        write_json(run.artefact("talk.json", kind="table"), result)
        write_text(run.artefact("talk.md", kind="table"), talk_table.markdown(result))
        _draw(config, run, clips, made, entries)
    run.say(talk_table.summary(result))


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


def _animate(
    config: Config, run: Run, backbone: Backbone, model: TalkingModel, clips: list[Clip], folder: Path
) -> tuple[list[Tensor], float]:
    """Frames [F, 3, S, S] uint8 of every clip's window, and the seconds that so many take; kept ones are read back."""
    made, seconds = [], 0.0
    with run.stage("animate", len(clips)):
        for index, clip in enumerate(clips):
            frames, spent = kept(
                folder / f"{index:04d}.safetensors",
                partial(_frames, config, run, backbone, model, clip, index),
            )
            seconds += spent * config.num_frames / len(frames)
            made.append(frames[clip.first_frame : clip.first_frame + config.num_frames])
            run.display.update(index + 1, {})
    return made, seconds


def _frames(
    config: Config, run: Run, backbone: Backbone, model: TalkingModel, clip: Clip, index: int
) -> Iterator[Tensor]:
    portrait = clip.portrait.float() / 255
    face = Sitter(picture=portrait, box=portrait_box(clip.portrait_landmarks)).whole(backbone.image_size)
    features = LogMelConfig().build().of(AudioClip(clip.audio), Fraction(clip.fps))
    made = animate(
        model, backbone, face, features,
        fps=Fraction(clip.fps), generators=lambda name: run.generator(f"{index}/{name}"), config=config.animate,
    )  # fmt: skip
    # What comes after the window has no truth to be held against.
    return until(made, clip.first_frame + config.num_frames)


def _score(
    config: Config, run: Run, judge: TalkJudge, clips: list[Clip], made: list[Tensor]
) -> list[dict[str, Any]]:
    frames = [each.float() / 255 for each in made]
    tracks = [judge.mouths(each, clip) for each, clip in zip(frames, clips, strict=True)]
    entries = []
    for index, clip in enumerate(clips):
        other = (index + 1) % len(clips)
        step = config.animate.clip_frames
        joins = [i for i in range(1, config.num_frames) if (clip.first_frame + i) % step == 0]
        portrait = (clip.portrait.float() / 255).expand(config.num_frames, -1, -1, -1)
        controls = {
            "oracle": judge.score(clip.images.float() / 255, clip),
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
                blocks=(clip.images[chosen].float() / 255, frames[chosen].float() / 255),
            )
        )
    contact_sheet.save(rows, run.artefact("talk.png", kind="image"), titles=("truth", "made"))
    for index in range(min(config.num_videos, len(clips))):
        clip = clips[index]
        both = [(picture.float() / 255 for picture in pictures) for pictures in (clip.images, made[index])]
        start = round(clip.first_frame / clip.fps * 16_000)
        encode(
            stream_side_by_side(both, captions=("truth", "made"), gap=2),
            run.artefact(f"clip_{index:02d}.mp4", kind="video"),
            fps=clip.fps,
            audio=SoundTrack(16_000, [clip.audio[start:].contiguous()]),
        )
