"""What a sound does to a mouth, learned without a picture: the sound's projection of a talking model, beforehand.

EMO and Hallo take what they hear from wav2vec 2.0, which has heard thousands of hours. Log-mel features have heard
nothing, and clips with pictures are few; utterances with their rig alone are cheap.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import torch
from torch import Tensor, nn

from avatar.audio import AudioClip
from avatar.audio_features import LogMelConfig
from avatar.model import TalkingModel
from experiments.world.speech import RIG_CHANNELS
from experiments.world.speech_shards import Spoken
from experiments.world.visemes import CHANNELS

_NOISE = 0.3  # of a window's level and of each band's, in units of the features' deviation


class SpeechData:
    """Utterances as features and lips, in memory; F frames of all of them one after another.

    lips: [F, 8], mouth opening and the rig's lip controls, each with mean 0 and deviation 1. utterance: [F], whose.
    """

    def __init__(self, spoken: Iterable[Spoken], fps: Fraction, *, like: SpeechData | None = None) -> None:
        """like: takes its means and deviations, so that both sets speak of the same numbers."""
        wanted = [RIG_CHANNELS.index(name) for name in CHANNELS]
        heard, places, lips, numbers, begin = [], [], [], [], 0
        for number, one in enumerate(spoken):
            features = LogMelConfig().build().of(AudioClip(one.audio), fps)
            count = min(features.num_frames, len(one.rigs))
            frames = features.read(0, count).half()
            # Beyond the ends the first and the last frame are repeated, as `read_windows` does.
            heard += [frames[:1], frames[:1], frames, frames[-1:], frames[-1:]]
            places.append(begin + torch.arange(count))
            lips.append(torch.cat([one.aperture[:count, None], one.rigs[:count, wanted]], dim=1))
            numbers.append(torch.full((count,), number))
            begin += count + 4
        self._heard, self._places = torch.cat(heard), torch.cat(places)
        self.utterance = torch.cat(numbers)
        values = torch.cat(lips).float()
        self.mean = values.mean(0) if like is None else like.mean
        self.deviation = values.std(0).clamp(min=1e-3) if like is None else like.deviation
        self.lips = (values - self.mean) / self.deviation

    def __len__(self) -> int:
        return len(self.lips)

    def windows(self, rows: Tensor) -> Tensor:
        """Features around some frames, [n, 5, P, D] float32."""
        return self._heard[self._places[rows, None] + torch.arange(5)].float()


class SoundRecipe:
    """The audio projection, and a linear reading of the mean token that is thrown away afterwards.

    Attention to the tokens is a weighted mean of linear maps of them, so what a linear map of their mean tells is at
    hand for every layer.
    """

    def __init__(self, model: TalkingModel, train: SpeechData, held_out: SpeechData) -> None:
        if model.config.audio_projection.window != 5:
            raise ValueError(
                f"the projection's window is {model.config.audio_projection.window} frames, must be 5"
            )
        self.model, self.train, self.held_out = model, train, held_out
        self.device = model.unet.device
        self.lips = nn.Linear(model.config.audio_projection.width, train.lips.shape[1]).to(self.device)
        model.requires_grad_(False)
        model.audio_projection.requires_grad_(True)
        self.modules = nn.ModuleDict({"audio_projection": model.audio_projection, "lips": self.lips})

    def loss(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mean squared error in deviations of each channel, of windows whose level and colouring are changed."""
        rows = torch.randint(len(self.train), (batch_size,), generator=generator)
        windows = self.train.windows(rows)
        level = torch.randn(batch_size, 1, 1, 1, generator=generator)
        colour = torch.randn(batch_size, 1, 1, windows.shape[-1], generator=generator)
        told = self._tell(windows + _NOISE * (level + colour))
        return (told - self.train.lips[rows].to(told)).square().mean(), {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Error as in the loss, and the mouth opening's correlation, mean over held-out utterances."""
        rows = torch.arange(len(self.held_out))
        told = torch.cat([self._tell(self.held_out.windows(some)).cpu() for some in rows.split(4096)])
        correlations = []
        for number in self.held_out.utterance.unique():
            frames = self.held_out.utterance == number
            both = torch.stack([told[frames, 0], self.held_out.lips[frames, 0]]).double()
            correlations.append(torch.corrcoef(both)[0, 1])
        return {
            "error": float((told - self.held_out.lips).square().mean()),
            "r": float(torch.stack(correlations).nanmean()),
        }

    def _tell(self, windows: Tensor) -> Tensor:
        tokens = self.model.encode_audio(windows[:, None].to(self.device))
        return self.lips(tokens.float()[:, 0].mean(1)).float()
