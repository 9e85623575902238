from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.world.espeak import (
    VARIANTS,
    EspeakError,
    EspeakRequest,
    espeak,
    espeak_available,
    held_out_voice,
    sample_request,
)  # fmt: skip
from experiments.world.speech import perform, speak

needs_espeak = pytest.mark.skipif(not espeak_available(), reason="the extra 'world' is not installed")


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_held_out_voices_stay_out() -> None:
    held = [name for name in VARIANTS if held_out_voice(name)]
    assert 5 <= len(held) <= 14
    for held_out in (False, True):
        generator = _generator()
        people = {
            sample_request("Hello.", held_out=held_out, generator=generator).voice.partition("+")[2]
            for _ in range(200)
        }
        assert len(people) == (len(held) if held_out else len(people))
        assert all(held_out_voice(name) == held_out for name in people)


def test_bad_requests() -> None:
    for bad, word in (
        ({"text": " "}, "nothing"),
        ({"text": "a", "rate": 5}, "rate"),
        ({"text": "a", "pitch": 100}, "pitch"),
    ):
        with pytest.raises(EspeakError, match=word):
            EspeakRequest(**bad)  # type: ignore[arg-type]


@needs_espeak
def test_equal_requests_give_equal_bytes() -> None:
    request = EspeakRequest(text="Six sharp sounds.", voice="en-us+f3", rate=160, seed=3)
    one, again = espeak(request), espeak(request)
    assert torch.equal(one.audio, again.audio)
    assert one.phones == again.phones
    assert one.audio.dtype == torch.float32
    assert one.audio.abs().max() <= 1
    assert one.voice == "en-us+f3"


@needs_espeak
def test_phonemes_lie_where_they_sound() -> None:
    speech = espeak(EspeakRequest(text="A papa, a mama.", voice="en-us+m3", rate=150))
    names = "".join(phone.name for phone in speech.phones)
    assert names.replace("ˈ", "").startswith("ɐpɑːpə")
    level = [
        float(speech.audio[int(p.start * 16000) : int(p.stop * 16000)].square().mean().sqrt())
        for p in speech.phones
    ]
    vowels = [v for v, p in zip(level, speech.phones, strict=True) if "ɑ" in p.name]
    stops = [v for v, p in zip(level, speech.phones, strict=True) if p.name == "p"]
    pauses = [v for v, p in zip(level, speech.phones, strict=True) if not p.name and p.stop - p.start > 0.05]
    assert len(vowels) >= 2
    assert len(stops) == 2
    assert max(stops) < 0.25 * min(vowels)  # the silence before the burst is the stop's
    assert max(pauses) < 0.02 * min(vowels)
    lengths = [p.stop - p.start for p in speech.phones if p.name == "p"]
    assert 0.03 < min(lengths) <= max(lengths) < 0.13


@needs_espeak
def test_voices_differ_and_unknown_ones_are_refused() -> None:
    low, high = (espeak(EspeakRequest(text="Hello there.", voice=f"en-us+{v}")) for v in ("m3", "f2"))
    assert low.audio.shape != high.audio.shape or not torch.equal(low.audio, high.audio)
    for voice in ("xx-none", "en-us+nobody"):
        with pytest.raises(EspeakError, match=voice.partition("+")[2] or voice):
            espeak(EspeakRequest(text="Hello.", voice=voice))


@needs_espeak
@pytest.mark.parametrize("seed", range(3))
def test_a_random_person_speaks(seed: int) -> None:
    generator = _generator(seed)
    speech = speak(held_out=bool(seed % 2), generator=generator)
    utterance = perform(speech, generator=generator)
    assert 1 < speech.duration < 15
    assert utterance.aperture.max() > 0.04
    assert utterance.aperture[:2].max() < 0.02
    assert float(speech.audio.abs().max()) > 0.05


def test_the_library_is_never_loaded_into_this_process() -> None:
    """Speech of the world, imported and used, leaves espeak outside."""
    code = (
        "import sys, torch; import experiments.world.speech as s\n"
        "from experiments.world.espeak import espeak_available\n"
        "g = torch.Generator().manual_seed(0)\n"
        "if espeak_available(): s.speak(held_out=False, generator=g)\n"
        "assert 'espeakng_loader' not in sys.modules\n"
        "assert 'experiments.world.espeak_worker' not in sys.modules\n"
        "maps = open('/proc/self/maps').read() if sys.platform == 'linux' else ''\n"
        "assert 'espeak' not in maps\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
