"""What a sound does to a mouth: utterances come back from their shards, and the projection learns to tell."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from avatar.audio import AudioClip
from avatar.audio_features import LogMelConfig
from avatar.audio_frames import read_windows
from diffusion.adapters.audio import AudioProjectionConfig
from experiments.training.listening import SoundRecipe, SpeechData
from experiments.world.config import TalkingConfig
from experiments.world.speech_shards import Spoken, make_speech, read_speech
from experiments.world.talking import make_clip, utterance_of
from tests.avatar.talking import make_model

FPS = Fraction(25)
WORDLESS = TalkingConfig(num_clips=3, clips_per_shard=2, num_frames=4, size=16, speech="formants")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> list[Spoken]:
    return list(read_speech(list(make_speech(tmp_path_factory.mktemp("speech"), WORDLESS, workers=1))))


def test_utterances_are_those_of_the_clips(spoken: list[Spoken]) -> None:
    assert len(spoken) == 3
    clip, utterance = make_clip(WORDLESS, 2), utterance_of(WORDLESS, 2)
    assert torch.equal(spoken[2].audio, clip.audio)
    assert torch.equal(spoken[2].rigs, utterance.rigs)
    assert torch.equal(spoken[2].aperture[clip.first_frame :][:4], clip.aperture)


def test_what_the_recipe_sees_of_an_utterance(spoken: list[Spoken]) -> None:
    data = SpeechData(spoken, FPS)
    assert torch.allclose(data.lips.mean(0), torch.zeros(8), atol=1e-4)
    count = int((data.utterance == 0).sum())
    frames = LogMelConfig().build().of(AudioClip(spoken[0].audio), FPS)
    wanted = read_windows(frames.read, 0, count, frames.num_frames).half().float()
    seen = data.windows(torch.arange(count))
    assert torch.equal(seen[: count - 2], wanted[: count - 2])
    assert data.windows(torch.tensor([count])).shape == (1, 5, 4, 80)
    like = SpeechData(spoken[:1], FPS, like=data)
    assert torch.allclose(like.lips, data.lips[:count])


def test_it_learns_what_the_mouth_does(spoken: list[Spoken]) -> None:
    data = SpeechData(spoken, FPS)
    model = make_model(
        audio_projection=AudioProjectionConfig(window=5, features=320, hidden=32, tokens=2, width=16)
    )
    recipe = SoundRecipe(model, data, data)
    trained = [p for p in recipe.modules.parameters() if p.requires_grad]
    assert {id(p) for p in model.parameters() if p.requires_grad} <= {id(p) for p in trained}
    optimiser = torch.optim.Adam(trained, lr=3e-3)
    before = recipe.validate()
    for step in range(60):
        loss, _ = recipe.loss(32, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    after = recipe.validate()
    assert after["error"] < 0.7 * before["error"]
    assert after["r"] > 0.6 > before["r"]


def test_a_window_of_another_length_is_refused(spoken: list[Spoken]) -> None:
    data = SpeechData(spoken[:1], FPS)
    model = make_model(
        audio_projection=AudioProjectionConfig(window=3, features=320, hidden=8, tokens=2, width=8)
    )
    with pytest.raises(ValueError, match="window is 3 frames, must be 5"):
        SoundRecipe(model, data, data)
