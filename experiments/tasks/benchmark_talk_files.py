"""Talking portraits of anybody's pictures and recordings, scored as far as that goes without a truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avatar.audio import SAMPLE_RATE, AudioClip, AudioFile
from avatar.audio_features import LogMelConfig
from avatar.audio_frames import num_frames
from avatar.face import FaceError, find_face
from avatar.face_box import FaceBox
from avatar.model import TalkingModel
from avatar.pipeline import animate
from avatar.portrait import load_portrait
from diffusion.backbone import Backbone
from experiments.benchmark import circumstances, contact_sheet, talk_files_table
from experiments.benchmark.scoring import mean_scores
from experiments.benchmark.talk_files import FilesJudge, Pair, loudness, pairs, read_folder
from experiments.benchmark.talk_frames import kept, made_folder, until
from experiments.benchmark.talk_measures import load_measures
from experiments.errors import UserError
from experiments.run.backbones import BackboneConfig, load_into
from experiments.run.files import write_json, write_text
from experiments.run.machine import peak_memory_mb
from experiments.run.provenance import describe_file
from experiments.run.run import Run
from experiments.speaking import Sitter, beside_backbone, load_talking
from experiments.tasks.configs.benchmark_talk_files import Config
from experiments.tasks.configs.speaking import rate
from video.encode import encode
from video.pixels import from_uint8
from video.sound import SoundTrack

_SHEET_FRAMES = 8


inputs = beside_backbone


def validate(config: Config) -> None:
    """Read every file before anything is written."""
    _read(config)


def run(config: Config, run: Run) -> None:
    """Make every pair speak, score it, and write talk_files.json, talk_files.md, talk_files.png and the videos."""
    load_average = circumstances.load_average()
    backbone = load_into(run, config.backbone)
    run.generated_by_ai = True
    model = load_talking(backbone, config.talking, config.animate)
    reader, _ = load_measures(backbone, config.measures)
    folder, adapters = made_folder(run, backbone, config.talking)
    speakers, left_out, remarks = _read(config)
    for name, reason in left_out.items():
        run.note(f"{name} is left out: {reason}")
    for remark in remarks:
        run.note(remark)
    frames, seconds = [], 0.0
    with run.phase("animate", len(speakers)):
        for index, speaker in enumerate(speakers):
            make = partial(_frames, config, run, backbone, model, speaker, index)
            made, spent = kept(folder / f"{index:04d}.safetensors", make)
            frames.append(from_uint8(made))
            seconds += spent
            run.display.update(index + 1, {})
    with run.phase("score", len(speakers)):
        entries = _score(config, run, FilesJudge(reader=reader, backbone=backbone), speakers, frames)
    result = {
        **circumstances.head(
            config, Config(task=config.task, portrait_dir="", audio_dir="", backbone=BackboneConfig(name="tiny")),
            run, load_average,
        ),
        "adapters": adapters,
        "frames_per_second": sum(map(len, frames)) / max(seconds, 1e-9),
        "peak_memory_mb": peak_memory_mb(),
        "scores": mean_scores([entry["scores"] for entry in entries]),
        "controls": {
            name: mean_scores([entry["controls"][name] for entry in entries])
            for name in talk_files_table.CONTROLS
            if all(name in entry["controls"] for entry in entries)
        },
        "pairs": entries,
        "left_out": left_out,
    }  # fmt: skip
    with run.phase("write"):
        run.metrics.update({name: result[name] for name in ("scores", "controls", "frames_per_second")})
        write_json(run.artefact("talk_files.json", kind="table"), result)
        write_text(run.artefact("talk_files.md", kind="table"), talk_files_table.markdown(result))
        _draw(config, run, backbone, speakers, frames, entries)
    run.say(talk_files_table.summary(result))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Speaker:
    """A pair, read: its picture with the face found, and the sound as far as it is used."""

    pair: Pair
    sitter: Sitter
    sound: AudioClip

    def box(self, size: int) -> FaceBox:
        """The face in the square of `size` pixels that is made to speak."""
        return self.sitter.crop.to_crop(self.sitter.box, size)


def _read(config: Config) -> tuple[list[_Speaker], dict[str, str], list[str]]:
    """The pairs; why which files of the folders are left out; and what is special about recordings."""
    remarks: list[str] = []

    def sitter(path: Path) -> Sitter:
        picture = load_portrait(path)
        try:
            return Sitter(picture=picture, box=find_face(picture, face=config.face)).close_up()
        except FaceError as error:
            raise UserError(f"portrait_dir: {path.name}: {error}") from None

    def sound(path: Path) -> AudioClip:
        file = AudioFile(path)
        remarks.extend(f"{path.name}: the recording {remark}" for remark in file.remarks)
        clip = AudioClip(file.read(0, min(file.num_samples, round(config.seconds * SAMPLE_RATE))))
        if num_frames(clip.duration, rate(config.fps)) < 2:
            raise UserError(
                f"audio_dir: {path.name} makes a single frame with fps={config.fps} and seconds={config.seconds:g}, "
                "which cannot be scored: make either greater"
            )
        return clip

    portraits, no_pictures = read_folder("portrait_dir", Path(config.portrait_dir).expanduser(), sitter)
    recordings, no_sounds = read_folder("audio_dir", Path(config.audio_dir).expanduser(), sound)
    speakers = [
        _Speaker(pair=pair, sitter=portraits[pair.portrait], sound=recordings[pair.audio])
        for pair in pairs(list(portraits), list(recordings))
    ]
    left_out = [
        (f"{key}/{name}", why)
        for key, each in (("portrait_dir", no_pictures), ("audio_dir", no_sounds))
        for name, why in each.items()
    ]
    return speakers, dict(left_out), remarks


def _frames(
    config: Config, run: Run, backbone: Backbone, model: TalkingModel, speaker: _Speaker, index: int
) -> Iterator[Tensor]:
    features = LogMelConfig().build().of(speaker.sound, rate(config.fps))
    clips = animate(
        model, backbone, speaker.sitter.face(backbone.image_size), features,
        fps=rate(config.fps), generators=lambda name: run.generator(f"{index}/{name}"), config=config.animate,
    )  # fmt: skip
    return until(clips, features.num_frames)


def _score(
    config: Config, run: Run, judge: FilesJudge, speakers: list[_Speaker], frames: list[Tensor]
) -> list[dict[str, Any]]:
    size = judge.backbone.image_size
    tracks = [judge.mouths(made, speaker.box(size)) for made, speaker in zip(frames, speakers, strict=True)]
    entries = []
    for index, (speaker, made) in enumerate(zip(speakers, frames, strict=True)):
        portrait = speaker.sitter.face(size).image
        loud = loudness(speaker.sound, rate(config.fps), len(made))
        still = judge.mouths(portrait[None], speaker.box(size)).expand(len(made))
        joins = range(config.animate.clip_frames, len(made), config.animate.clip_frames)
        controls = {
            "static": judge.score(portrait.expand(len(made), -1, -1, -1), portrait, still, loud),
        }
        other = speakers[(index + 1) % len(speakers)]
        if other.pair.audio != speaker.pair.audio:
            count = min(len(made), num_frames(other.sound.duration, rate(config.fps)))
            shuffled = loudness(other.sound, rate(config.fps), count)
            scores = judge.score(made[:count], portrait, tracks[index][:count], shuffled)
            controls["shuffled"] = {name: scores[name] for name in ("loudness_r",) if name in scores}
        entries.append(
            {
                "portrait": describe_file(speaker.pair.portrait),
                "audio": describe_file(speaker.pair.audio),
                "num_frames": len(made),
                "scores": judge.score(made, portrait, tracks[index], loud, joins),
                "controls": controls,
            }
        )
        run.display.update(index + 1, {})
    return entries


def _draw(
    config: Config,
    run: Run,
    backbone: Backbone,
    speakers: list[_Speaker],
    frames: list[Tensor],
    entries: list[dict[str, Any]],
) -> None:
    rows = []
    for index, (speaker, made, entry) in enumerate(zip(speakers, frames, entries, strict=True)):
        chosen = torch.linspace(0, len(made) - 1, _SHEET_FRAMES).round().long()
        portrait = speaker.sitter.face(backbone.image_size).image
        rows.append(
            contact_sheet.Row(
                caption=speaker.pair.name,
                line=f"r {entry['scores'].get('loudness_r', float('nan')):.2f}",
                blocks=(torch.cat([portrait[None], made[chosen]]),),
            )
        )
        encode(
            made,
            run.artefact(f"pair_{index:02d}.mp4", kind="video"),
            fps=rate(config.fps),
            metadata=run.media_tags(),
            audio=SoundTrack(SAMPLE_RATE, [speaker.sound.samples]),
        )
    contact_sheet.save(rows, run.artefact("talk_files.png", kind="image"), ("portrait, then what was made",))
