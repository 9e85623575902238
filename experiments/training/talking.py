"""Recipes of the talking portrait: its adapters, lesson by lesson, and the two small networks that measure it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avatar.audio import AudioClip
from avatar.audio_features import LogMelConfig
from avatar.audio_frames import read_windows
from avatar.face import face_box_of
from avatar.face_box import FaceBox
from avatar.face_regions import face_mask, regions
from avatar.lessons.base import Lesson
from avatar.model import TalkingModel
from avatar.mouth import MouthReader, mouth_region
from avatar.syncnet import WINDOW, SyncNet, contrast
from avatar.trainable import set_trainable
from avatar.training import TalkingBatch, lesson_loss
from diffusion.backbone import Backbone
from experiments.training.channels import pixel_weights
from experiments.training.latents import cached_latents
from experiments.world.speech import RIG_CHANNELS
from experiments.world.talking import LANDMARKS, Clip
from video.pixels import from_uint8


class TalkingData:
    """Clips as the recipes read them, in memory; N clips of F frames.

    images: [N, F, 3, S, S] uint8; portraits: [N, 3, S, S] uint8. aperture, speed, blink: [N, F]. windows: [N, F, W, P,
    B] half, of sound features. boxes: the portraits' face boxes.
    """

    def __init__(self, clips: Iterable[Clip]) -> None:
        lids = [RIG_CHANNELS.index(name) for name in ("blink_left", "blink_right")]
        columns: dict[str, list[Tensor]] = {}
        self.boxes: list[FaceBox] = []
        for clip in clips:
            self.boxes.append(portrait_box(clip.portrait_landmarks))
            for name, value in (
                ("images", clip.images),
                ("portraits", clip.portrait),
                ("aperture", clip.aperture),
                ("speed", clip.head_speed),
                ("blink", clip.rigs[:, lids].mean(1)),
                ("windows", sound_windows(clip)),
            ):
                columns.setdefault(name, []).append(value)
        joined = {name: torch.stack(values) for name, values in columns.items()}
        self.images, self.portraits = joined["images"], joined["portraits"]
        self.aperture, self.speed, self.blink = joined["aperture"], joined["speed"], joined["blink"]
        self.windows = joined["windows"]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_frames(self) -> int:
        """F."""
        return self.images.shape[1]


def portrait_box(landmarks: Tensor) -> FaceBox:
    """The face box of a portrait of the world from its landmarks [L, 2]."""
    at = {name: landmarks[index] for index, name in enumerate(LANDMARKS)}
    mouth = (at["mouth_left"] + at["mouth_right"]) / 2
    return face_box_of(torch.stack([at["eye_left"], at["eye_right"]]), mouth)


def sound_windows(clip: Clip) -> Tensor:
    """Features around every frame of a clip, [F, W, P, B] half, with the context that its whole sound gives."""
    frames = LogMelConfig().build().of(AudioClip(clip.audio), clip.fps)
    return read_windows(
        frames.read, clip.first_frame, clip.first_frame + clip.num_frames, frames.num_frames
    ).half()


class TalkRecipe:
    """One lesson of the adapters; the backbone stays as it is (unless the architecture says otherwise).

    cache: folder where latents are kept, so that a continued run need not encode the pictures again.
    """

    def __init__(
        self,
        backbone: Backbone,
        model: TalkingModel,
        train: TalkingData,
        held_out: TalkingData,
        lesson: Lesson,
        *,
        cache: Path | None = None,
    ) -> None:
        """model: lives on the backbone's UNet."""
        self.model = model.float()
        set_trainable(self.model, lesson.groups())
        self.modules = nn.ModuleDict({"talking": self.model})
        self.schedule, self.lesson = backbone.schedule, lesson
        self.past = model.config.motion.motion_frames
        self.num_frames = lesson.frames()
        if self.past + self.num_frames > train.num_frames:
            raise ValueError(
                f"num_frames is {self.num_frames}, but with {self.past} motion frames before them the clips of "
                f"{train.num_frames} frames are too short; make num_frames at most {train.num_frames - self.past}"
            )
        self.weights = pixel_weights(backbone, from_uint8(train.portraits[:32]))
        self.train = EncodedClips.of(backbone, train, cache)
        self.held_out = EncodedClips.of(backbone, held_out, cache)

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(self.train.data), (batch_size,), generator=generator)
        last = self.train.data.num_frames - self.num_frames
        starts = torch.randint(self.past, last + 1, (batch_size,), generator=generator)
        batch = self._batch(self.train, rows, starts)
        return self._error(batch, self.lesson, generator).mean(), {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Error of v on held-out clips, weighted as in the loss, nothing dropped, noise and timesteps always the same.

        `v_error_other_sound`: the same with the next clip's sound; what lies between them is what the sound tells.
        """
        lesson = self.lesson.undisturbed()
        errors: dict[str, list[Tensor]] = {"v_error": [], "v_error_other_sound": []}
        for rows in torch.arange(len(self.held_out.data)).split(8):
            batch = self._batch(self.held_out, rows, torch.full((len(rows),), self.past))
            other = torch.roll(batch.windows, 1, dims=0)
            for name, windows in (("v_error", batch.windows), ("v_error_other_sound", other)):
                if name != "v_error" and lesson.still:
                    continue
                generator = torch.Generator().manual_seed(int(rows[0]))
                changed = replace(batch, windows=windows)
                errors[name].append(self._error(changed, lesson, generator))
        return {name: float(torch.cat(values).mean()) for name, values in errors.items() if values}

    def _error(self, batch: TalkingBatch, lesson: Lesson, generator: torch.Generator) -> Tensor:
        return lesson_loss(
            self.model, self.schedule, batch, lesson, channel_weights=self.weights, generator=generator
        )

    def _batch(self, inputs: EncodedClips, rows: Tensor, starts: Tensor) -> TalkingBatch:
        device = self.model.unet.device
        return inputs.batch(rows, starts, num_frames=self.num_frames, past=self.past, device=device)


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedClips:
    """latents: [N, F, C, h, w]. portraits: [N, C, h, w]. identity: [N, E] or None."""

    data: TalkingData
    latents: Tensor
    portraits: Tensor
    identity: Tensor | None

    @staticmethod
    @torch.no_grad()
    def of(backbone: Backbone, data: TalkingData, cache: Path | None) -> EncodedClips:
        portraits = from_uint8(data.portraits)
        identity = None
        if backbone.image_encoder is not None:
            parts = [backbone.embed_image(some.to(backbone.device)).cpu() for some in portraits.split(64)]
            identity = torch.cat(parts)
        return EncodedClips(
            data=data,
            latents=cached_latents(backbone, data.images, cache),
            portraits=cached_latents(backbone, data.portraits[:, None], cache)[:, 0],
            identity=identity,
        )

    def batch(
        self, rows: Tensor, starts: Tensor, *, num_frames: int, past: int, device: torch.device
    ) -> TalkingBatch:
        """`num_frames` frames of the clips `rows [B]` from the frames `starts [B]` on, the `past` ones before
        them apart."""
        data = self.data
        frames = starts[:, None] + torch.arange(num_frames)
        before = starts[:, None] + torch.arange(-past, 0)
        each = rows[:, None]
        size = data.images.shape[-1]
        boxes = [data.boxes[int(row)] for row in rows]

        def put(values: Tensor) -> Tensor:
            return values.to(device).float()

        return TalkingBatch(
            latents=put(self.latents[each, frames]),
            past=put(self.latents[each, before]),
            reference=put(self.portraits[rows])[:, None],
            identity=None if self.identity is None else put(self.identity[rows]),
            windows=put(data.windows[each, frames]),
            location=put(torch.stack([face_mask(box, size) for box in boxes]))[:, None],
            regions=put(torch.stack([regions(box, size) for box in boxes])),
            speed=put(data.speed[each, frames]),
            blink=put(data.blink[each, frames]),
        )


class MouthRecipe:
    """How wide a mouth is open, from its region in one frame; some frames are blurred, as made ones are."""

    def __init__(self, train: TalkingData, held_out: TalkingData, device: torch.device) -> None:
        self.reader = MouthReader().to(device)
        self.modules = nn.ModuleDict({"mouth": self.reader})
        self.data, self.held_out, self.device = train, held_out, device

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(self.data), (batch_size,), generator=generator)
        frames = torch.randint(self.data.num_frames, (batch_size,), generator=generator)
        mouths = torch.stack(
            [
                lips(self.data, int(r), slice(int(f), int(f) + 1), generator)[0]
                for r, f in zip(rows, frames, strict=True)
            ]
        ).to(self.device)
        truth = self.data.aperture[rows, frames].to(self.device)
        # In units of a wide open mouth.
        return ((self.reader(mouths) - truth) / 0.15).square().mean(), {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean absolute error in head units (0.15 is wide open), and the correlation over all held-out frames."""
        read = torch.cat(
            [
                self.reader(lips(self.held_out, i, slice(None)).to(self.device)).cpu()
                for i in range(len(self.held_out))
            ]
        )
        truth = self.held_out.aperture.flatten()
        both = torch.stack([read, truth]).double()
        return {"error": float((read - truth).abs().mean()), "r": float(torch.corrcoef(both)[0, 1])}


class SyncRecipe:
    """Lips and sound of the same moment against those of other moments, half of them of the same clip."""

    def __init__(self, train: TalkingData, held_out: TalkingData, device: torch.device) -> None:
        self.net = SyncNet().to(device)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.modules = nn.ModuleDict({"sync": self.net})
        self.modules.register_parameter("scale", self.scale)
        self.modules.to(device)
        self.data, self.held_out, self.device = train, held_out, device

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        last = self.data.num_frames - WINDOW
        rows = torch.randint(len(self.data), (-(-batch_size // 2),), generator=generator).repeat(2)[
            :batch_size
        ]
        starts = torch.randint(last + 1, (batch_size,), generator=generator)
        video, sound = self._moments(self.data, rows, starts, generator)
        scale = self.scale.clamp(max=4.0).exp()
        return contrast(video, sound, scale), {"scale": float(scale.detach())}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of held-out moments, one a clip in sets of 32, whose own sound is the nearest; chance is 1/32."""
        hits = []
        for rows in torch.arange(len(self.held_out)).split(32):
            starts = torch.zeros(len(rows), dtype=torch.long) + self.held_out.num_frames // 2 - WINDOW // 2
            video, sound = self._moments(self.held_out, rows, starts, None)
            hits.append((video @ sound.T).argmax(1).cpu() == torch.arange(len(rows)))
        return {"retrieval_top1": float(torch.cat(hits).float().mean())}

    def _moments(
        self, data: TalkingData, rows: Tensor, starts: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        spans = [slice(int(start), int(start) + WINDOW) for start in starts]
        video = torch.stack(
            [lips(data, int(r), span, generator) for r, span in zip(rows, spans, strict=True)]
        )
        # The middle of a frame's window of features is the frame itself.
        centre = data.windows.shape[2] // 2
        sound = torch.stack(
            [data.windows[int(r), span, centre].float() for r, span in zip(rows, spans, strict=True)]
        )
        return (
            self.net.embed_lips(video.to(self.device)),
            self.net.embed_sound(sound.to(self.device)),
        )


LIP_SIDE = 0.5
"""Side of the mouth's region in sides of the face box: lips and what a head moves."""


def lips(data: TalkingData, clip: int, frames: slice, generator: torch.Generator | None = None) -> Tensor:
    """The mouth's region in some frames of a clip, [F, 3, n, n] float in [0, 1], about the portrait's mouth.

    The region stays where the portrait's mouth is, as it does when the truth is not known. generator: shifts and
    sometimes blurs it, for training; all regions are resized to one side then.
    """
    box = data.boxes[clip]
    x, y = mouth_centre(box)
    blur = False
    if generator is not None:
        dx, dy, drawn = torch.rand(3, generator=generator).tolist()
        x, y, blur = x + 0.1 * box.size * (dx - 0.5), y + 0.1 * box.size * (dy - 0.5), drawn < 0.5
    region = mouth_region(from_uint8(data.images[clip, frames]), (x, y), LIP_SIDE * box.size)
    region = F.interpolate(region, size=(48, 48), mode="bilinear", antialias=True, align_corners=False)
    if blur:
        region = F.interpolate(F.avg_pool2d(region, 2), size=(48, 48), mode="bilinear", align_corners=False)
    return region


def mouth_centre(box: FaceBox) -> tuple[float, float]:
    """Where the face box has its mouth, (x, y)."""
    return box.x + 0.5 * box.size, box.y + 0.77 * box.size
