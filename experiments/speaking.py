"""A portrait is made to speak: what the tasks that end in talk.mp4 share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from avatar.audio import AudioError, AudioFile
from avatar.audio_features import FrameFeatures, LogMelConfig
from avatar.backdrop import Backdrop
from avatar.face import MIN_FACE, FaceBox
from avatar.face_crop import Crop, shrunk
from avatar.face_regions import face_mask, regions
from avatar.model import TalkingModel
from avatar.pipeline import Face, TalkingClip, animate, check_clip_frames
from avatar.settings import AnimateConfig
from avatar.storage import load_adapters
from diffusion.backbone import Backbone
from diffusion.files import save_tensors
from experiments.errors import UserError, describe
from experiments.run.files import sha256_of_file
from experiments.run.images import grid, save_png
from experiments.run.inputs import place_of
from experiments.run.run import Run
from experiments.run.spool import as_typed, spooled
from experiments.tasks.configs.speaking import SpeakSettings, rate
from video.config import EncodeConfig
from video.encode import encode

ADAPTERS, MOUTH, SYNC = "talking/model.safetensors", "talking/mouth.safetensors", "talking/sync.safetensors"
"""Where a backbone's folder keeps the adapters that make it talk, and the networks that measure how well."""

_CLIPS = "checkpoints/clips"  # where overwrite=true clears them away too
_PREVIEW_FRAMES = 7
_LARGEST_VIDEO = 36_864  # blocks of 16 x 16 pixels, H.264 level 5.2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sitter:
    """The picture and where in it the face is. picture: [3, H, W]. box: the face, in its pixels."""

    picture: Tensor
    box: FaceBox

    @property
    def crop(self) -> Crop:
        """The square that is made to speak."""
        return Crop.around(self.box)

    def close_up(self) -> Sitter:
        """The same square without the rest of the picture, so that many sitters fit into memory."""
        crop, box = self.crop, self.box
        # An even number of pixels is cut off, so that halves are rounded as before.
        left, top = max(crop.x, 0) // 2 * 2, max(crop.y, 0) // 2 * 2
        part = self.picture[:, top : crop.y + crop.size, left : crop.x + crop.size].clone()
        return Sitter(picture=part, box=FaceBox(box.x - left, box.y - top, box.size))

    def face(self, size: int) -> Face:
        """The square at the backbone's size, and its regions."""
        box = self.crop.to_crop(self.box, size)
        return Face(
            image=self.crop.cut(self.picture, size), location=face_mask(box, size), regions=regions(box, size)
        )

    def whole(self, size: int) -> Face:
        """The picture as it is, which must have the backbone's size: a portrait of the world needs no crop."""
        return Face(image=self.picture, location=face_mask(self.box, size), regions=regions(self.box, size))


def listen(path: str) -> AudioFile:
    """Open a recording; UserError for one that cannot be used."""
    try:
        return AudioFile(spooled(path))
    except (AudioError, OSError) as error:
        raise UserError(f"audio: {as_typed(describe(error)[0], path)}") from None


def adapters_file(backbone: Backbone, path: str | None) -> Path:
    """The file of adapters, `path` or that beside the backbone; UserError where there is none."""
    file = spooled(path) if path is not None else None
    if file is None and backbone.folder is not None:
        file = backbone.folder / ADAPTERS
    if file is None or not file.is_file():
        raise UserError(
            f"backbone {backbone.name!r} has no talking adapters ({file} is not there); name a file of them with "
            "talking=FILE, or train some: galatea experiment=train/tiny_talk"
        )
    return file


def beside_backbone(config: Any) -> dict[str, Path]:
    """What a task that lets portraits speak reads without a setting that names it: adapters, and measures if it has
    any, beside the backbone. `config`: its settings."""
    folder = place_of(config.backbone.name)
    if folder is None:
        return {}
    found = {"talking": folder / ADAPTERS, "measures": (folder / MOUTH).parent}
    return {key: path for key, path in found.items() if getattr(config, key, path) is None}


def load_talking(backbone: Backbone, path: str | None, animation: AnimateConfig) -> TalkingModel:
    """The talking model on a backbone's UNet; `path` None for the adapters beside the backbone. UserError where they
    cannot be used, or not for this animation."""
    try:
        model = load_adapters(adapters_file(backbone, path), backbone.unet)
    except ValueError as error:
        raise UserError(f"talking: {error}") from None
    try:
        check_clip_frames(animation, model)
    except ValueError as error:
        raise UserError(f"animate: {error}") from None
    return model


def write_talk(
    config: SpeakSettings,
    run: Run,
    backbone: Backbone,
    model: TalkingModel,
    sitter: Sitter,
    sound: AudioFile,
    *,
    max_size: int | None = None,
    on_clip: Callable[[TalkingClip], None] | None = None,
) -> None:
    """Animate the portrait clip by clip, and write talk.mp4 and talk.png.

    Every finished clip is kept, so that a run that was stopped goes on behind the last one, unless the adapters are
    others by then (UserError). max_size: pixels of the video's longer side where it shows the
    whole picture.
    on_clip: called after each clip that was made now.
    """
    run.generated_by_ai = True
    run.made_with("talking", sha256_of_file(adapters_file(backbone, config.talking)))
    for remark in sound.remarks:
        run.note(f"the recording {remark}")
    features = LogMelConfig().build().of(sound, rate(config.fps))
    face = sitter.face(backbone.image_size)
    frames = _frames(config, run, backbone, model, face, features, on_clip)
    shown: list[Tensor] = []
    frames = _kept_some(frames, shown, features.num_frames)
    with torch.no_grad():
        seen = backbone.decode(backbone.encode(face.image.to(backbone.device))).float().cpu()
    backdrop = Backdrop.of(face.image, seen, sitter.crop.to_crop(sitter.box, backbone.image_size))
    if config.frame == "picture":
        picture, crop = _canvas(run, sitter, max_size)
        frames = (crop.paste(frame, picture, share=backdrop.share(frame)) for frame in frames)
    else:
        frames = (torch.lerp(face.image, frame, backdrop.share(frame)) for frame in frames)
    encode(
        frames,
        run.artefact("talk.mp4", kind="video"),
        config=EncodeConfig(crf=config.crf),
        fps=rate(config.fps),
        metadata=run.media_tags(),
        audio=sound.track(),
    )
    run.end_phase()
    save_png(grid(torch.stack([face.image, *shown])[None]), run.artefact("talk.png", kind="image"))
    run.metrics["frames"] = features.num_frames
    shutil.rmtree(run.folder / _CLIPS)


def _canvas(run: Run, sitter: Sitter, max_size: int | None) -> tuple[Tensor, Crop]:
    """The picture as the video shows it, and the square in it that speaks; what changes its size is noted."""
    height, width = sitter.picture.shape[1:]
    picture = sitter.picture if max_size is None else shrunk(sitter.picture, max_size)
    factor = picture.shape[2] / width
    if picture is not sitter.picture:
        small = factor * sitter.box.size
        run.note(
            f"the picture of {width} x {height} pixels is scaled to {picture.shape[2]} x {picture.shape[1]} in the "
            f"video (max_size={max_size}; max_size=null keeps it)"
            + (f", where the face is {small:.0f} pixels wide" if small < MIN_FACE else "")
        )
    elif -(-height // 16) * -(-width // 16) > _LARGEST_VIDEO:
        run.note(
            f"the video of {width} x {height} pixels is beyond what most players and phones show (4096 x 2304); "
            "max_size=1280 makes it smaller and faster"
        )
    return _even(picture), sitter.crop.scaled(factor)


def _even(picture: Tensor) -> Tensor:
    """H.264 stores one colour for 2 x 2 pixels: an odd last row or column is left out."""
    height, width = picture.shape[1:]
    return picture[:, : height // 2 * 2, : width // 2 * 2]


def _frames(
    config: SpeakSettings,
    run: Run,
    backbone: Backbone,
    model: TalkingModel,
    face: Face,
    features: FrameFeatures,
    on_clip: Callable[[TalkingClip], None] | None,
) -> Iterator[Tensor]:
    """Every frame [3, S, S], those of finished clips from their latents; each new clip is kept at once."""
    folder = run.folder / _CLIPS
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    while _clip_file(folder, done).is_file():
        done += 1
    run.begin_phase(
        "animate", features.num_frames, min(done * config.animate.clip_frames, features.num_frames)
    )
    past = None
    for index in range(done):
        kept = load_file(_clip_file(folder, index))
        past = kept["past"]
        yield from backbone.decode(kept["latents"].to(backbone.device)).float().cpu()
    clips = animate(
        model, backbone, face, features,
        fps=rate(config.fps), generators=run.generator, config=config.animate, first_clip=done, past=past,
    )  # fmt: skip
    for clip in clips:
        save_tensors(_clip_file(folder, clip.index), {"latents": clip.latents, "past": clip.past})
        yield from clip.images.cpu()
        run.display.update(clip.start + len(clip.images), {})
        if on_clip is not None:
            on_clip(clip)


def _clip_file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.safetensors"


def _kept_some(frames: Iterator[Tensor], shown: list[Tensor], count: int) -> Iterator[Tensor]:
    """The same frames; a few, evenly spread, are put into `shown` as they pass."""
    wanted = {round((i + 0.5) * count / _PREVIEW_FRAMES - 0.5) for i in range(_PREVIEW_FRAMES)}
    for index, frame in enumerate(frames):
        if index in wanted:
            shown.append(frame)
        yield frame
