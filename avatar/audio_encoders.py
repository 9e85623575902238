"""Speech encoders of transformers behind the protocol of `avatar.audio_features`.

An encoder hears a segment at a time (up to a minute for wav2vec 2.0, half a minute for Whisper): attention looks both
ways, so what a frame's features are depends on its segment, and segments lie at fixed places of the sound. Reading a
clip at a time and reading at once agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from avatar.audio import SAMPLE_RATE, AudioSource
from avatar.audio_features import check_range
from avatar.audio_frames import num_frames, read_track
from diffusion.finite import check_finite
from diffusion.limits import check_least

if TYPE_CHECKING:
    from transformers import Wav2Vec2Model, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

_Module = TypeVar("_Module", bound=torch.nn.Module)

_SEGMENT_SECONDS = 60
_WHISPER_RATE = 50  # encoder steps a second


@dataclass(frozen=True, kw_only=True, slots=True)
class Wav2Vec2Config:
    """wav2vec 2.0 as Hallo uses it. folder: a model in transformers' layout with safetensors, on this disk.

    device: where it runs; features come back to the CPU.
    """

    folder: str
    device: str = "cpu"

    def build(self) -> Wav2Vec2Features:
        """Load the model."""
        from transformers import Wav2Vec2Model

        model = Wav2Vec2Model.from_pretrained(self.folder, local_files_only=True, use_safetensors=True)
        return Wav2Vec2Features(_on(model, self.device))


class Wav2Vec2Features:
    """All layers of a wav2vec 2.0 transformer, [F, layers, width]; (12, 768) for the base model.

    The convolutional features are brought to the video's frame rate by linear interpolation that keeps both ends
    (align_corners) before the transformer sees them, and hidden_states[1:] are kept: Hallo's way, equal to it for
    sounds up to a minute. Longer ones are cut into segments of a minute.
    """

    def __init__(self, model: Wav2Vec2Model) -> None:
        self.model = model.eval()

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, width)."""
        return int(self.model.config.num_hidden_layers), int(self.model.config.hidden_size)

    def of(self, audio: AudioSource, fps: Fraction) -> Wav2Vec2Frames:
        """The features of a sound; segments are encoded when they are first read."""
        return Wav2Vec2Frames(self, audio, Fraction(fps))

    @torch.no_grad()
    def encode(self, samples: Tensor, frames: int) -> Tensor:
        """samples: [N] at 16 kHz, N >= 400, not normalised. Returns [frames, layers, width]."""
        model = self.model
        scaled = (samples - samples.mean()) / torch.sqrt(samples.var(correction=0) + 1e-7)
        heard = model.feature_extractor(scaled[None].to(model.device, model.dtype))
        stretched = F.interpolate(heard, size=frames, mode="linear", align_corners=True).transpose(1, 2)
        projected, _ = model.feature_projection(stretched)
        states: list[Tensor] = []
        hooks = [layer.register_forward_hook(_keeper(states)) for layer in model.encoder.layers]
        try:
            last = model.encoder(projected).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        # With 'stable layer norm' the last hidden state is the normalised one.
        return _finite(torch.stack([*states[:-1], last], dim=2)[0].float().cpu(), "wav2vec 2.0")


def _finite(features: Tensor, encoder: str) -> Tensor:
    remedy = (
        "its weights are damaged, or their dtype is too narrow: fetch them again, or load them as float32"
    )
    return check_finite(features, f"what the speech encoder {encoder} makes of the sound", remedy)


def _on(model: _Module, device: str) -> _Module:
    # nn.Module.to, for transformers' own overloads hide what it returns.
    torch.nn.Module.to(model, torch.device(device))
    return model


def _keeper(states: list[Tensor]) -> Callable[[object, object, Tensor | tuple[Tensor, ...]], None]:
    def keep(_module: object, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    return keep


class Wav2Vec2Frames:
    """A sound's wav2vec 2.0 features at one frame rate: see FrameFeatures. Keeps the segment last read."""

    def __init__(self, features: Wav2Vec2Features, audio: AudioSource, fps: Fraction) -> None:
        self.features, self.audio, self.fps = features, audio, fps
        self.num_frames = num_frames(audio.duration, fps)
        self.segment = int(_SEGMENT_SECONDS * fps)
        self._kept: tuple[int, Tensor] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, width)."""
        return self.features.shape

    def read(self, start: int, stop: int) -> Tensor:
        """Frames start ... stop - 1, [F, layers, width] float32."""
        check_range(start, stop, self.num_frames)
        pieces = []
        for index in range(start // self.segment, (stop - 1) // self.segment + 1):
            first = index * self.segment
            encoded = self._segment(index)
            pieces.append(encoded[max(start - first, 0) : max(stop - first, 0)])
        return torch.cat(pieces)

    def _segment(self, index: int) -> Tensor:
        if self._kept is None or self._kept[0] != index:
            first = index * self.segment
            frames = min(self.segment, self.num_frames - first)
            low = int(first * SAMPLE_RATE / self.fps)
            high = min(int((first + frames) * SAMPLE_RATE / self.fps), self.audio.num_samples)
            # The convolutions need 25 ms, and the last segment may be one short frame.
            high = max(high, low + 400)
            self._kept = index, self.features.encode(self.audio.read(low, high), frames)
        return self._kept[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class WhisperConfig:
    """Whisper's encoder as EchoMimic and MuseTalk use it. folder: a model in transformers' layout, on this disk.

    per_frame: encoder steps (50 a second) to a video frame. device: where it runs; features come back to the CPU.
    """

    folder: str
    per_frame: int = 2
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_least(self, 1, "per_frame")

    def build(self) -> WhisperFeatures:
        """Load encoder and spectrogram settings."""
        from transformers import WhisperFeatureExtractor, WhisperModel

        model = WhisperModel.from_pretrained(self.folder, local_files_only=True, use_safetensors=True)
        extractor = WhisperFeatureExtractor.from_pretrained(self.folder, local_files_only=True)
        return WhisperFeatures(_on(model.encoder, self.device), extractor, per_frame=self.per_frame)


class WhisperFeatures:
    """All hidden states of Whisper's encoder, [F, per_frame * states, width]: steps in order, states within each.

    Whisper tiny has 5 states of width 384: at 25 frames a second and two steps a frame, a window of +-2 frames is
    MuseTalk's 50 x 384. Other frame rates are served by linear interpolation between steps.
    """

    def __init__(
        self, encoder: WhisperEncoder, extractor: WhisperFeatureExtractor, *, per_frame: int = 2
    ) -> None:
        self.encoder, self.extractor, self.per_frame = encoder.eval(), extractor, per_frame
        self.steps = int(encoder.config.max_source_positions)

    @property
    def shape(self) -> tuple[int, int]:
        """(per_frame * states, width)."""
        config = self.encoder.config
        return self.per_frame * (int(config.encoder_layers) + 1), int(config.d_model)

    def of(self, audio: AudioSource, fps: Fraction) -> WhisperFrames:
        """The features of a sound; segments are encoded when they are first read."""
        return WhisperFrames(self, audio, Fraction(fps))

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """samples: [N] at 16 kHz, at most one segment (30 s). Returns [steps, states, width]."""
        length = self.steps * SAMPLE_RATE // _WHISPER_RATE
        mel = self.extractor(
            samples.numpy(), sampling_rate=SAMPLE_RATE, max_length=length, return_tensors="pt"
        ).input_features
        out = self.encoder(mel.to(self.encoder.device, self.encoder.dtype), output_hidden_states=True)
        return _finite(torch.stack(out.hidden_states, dim=2)[0].float().cpu(), "Whisper")


class WhisperFrames:
    """A sound's Whisper features at one frame rate: see FrameFeatures. Keeps the two segments last read."""

    def __init__(self, features: WhisperFeatures, audio: AudioSource, fps: Fraction) -> None:
        self.features, self.audio, self.fps = features, audio, fps
        self.num_frames = num_frames(audio.duration, fps)
        self._kept: dict[int, Tensor] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """(per_frame * states, width)."""
        return self.features.shape

    def read(self, start: int, stop: int) -> Tensor:
        """Frames start ... stop - 1, [F, per_frame * states, width] float32."""
        check_range(start, stop, self.num_frames)
        per_frame = self.features.per_frame
        values = read_track(
            self._steps, start, stop, self.fps, rate=_WHISPER_RATE, per_frame=per_frame
        )  # [F, per_frame, states, width]
        return values.flatten(1, 2)

    def _steps(self, start: int, stop: int) -> Tensor:
        length = self.features.steps
        pieces = []
        for index in range(start // length, (stop - 1) // length + 1):
            first = index * length
            pieces.append(self._segment(index)[max(start - first, 0) : max(stop - first, 0)])
        return torch.cat(pieces)

    def _segment(self, index: int) -> Tensor:
        if index not in self._kept:
            samples = self.features.steps * SAMPLE_RATE // _WHISPER_RATE
            encoded = self.features.encode(self.audio.read(index * samples, (index + 1) * samples))
            self._kept = {i: kept for i, kept in self._kept.items() if i == index - 1} | {index: encoded}
        return self._kept[index]
