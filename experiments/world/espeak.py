"""Speech by espeak-ng with the times of its phonemes, made in a process of its own (extra 'world').

The library is under the GPL: it is run as a program for making data and never loaded into this one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soxr
import torch

from experiments.errors import UserError
from experiments.world.speech_sound import SAMPLE_RATE, Speech
from experiments.world.visemes import Phone, visemes_of

_WORKER = Path(__file__).with_name("espeak_worker.py")
_TIMEOUT = 60.0  # seconds; an utterance takes a tenth of one

_VOICELESS_STOPS = tuple("ptkcqʈ")
# Seconds: the longest closure of a stop, how much of it where a pause hides its beginning, and from burst to opening.
_CLOSURE, _CLOSURE_AFTER_PAUSE, _RELEASE = 0.12, 0.07, 0.012

# Half the training data is American; other accents and the sounds of other languages make the ear robust.
ACCENTS = {
    "en-us": 0.5, "en": 0.1, "en-gb-scotland": 0.05, "en-gb-x-rp": 0.05, "en-gb-x-gbclan": 0.03,
    "en-us-nyc": 0.05, "en-029": 0.03, "de": 0.03, "es": 0.03, "fr": 0.02, "it": 0.03, "nl": 0.02, "sv": 0.02,
    "pl": 0.02, "pt-br": 0.02,
}  # fmt: skip
# Persons: espeak's voice variants, whispers and special effects left out.
VARIANTS = (
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee",
    "Marco", "Mario", "Michael", "Mike", "Nguyen", "Reed", "Storm", "adam", "anika", "antonio", "aunty", "belinda",
    "benjamin", "boris", "caleb", "david", "ed", "edward", "edward2", "f1", "f2", "f3", "f4", "f5", "gustave", "ian",
    "iven", "iven2", "iven3", "iven4", "john", "kaukovalta", "klatt", "klatt2", "klatt3", "klatt4", "linda", "m1",
    "m2", "m3", "m4", "m5", "m6", "m7", "m8", "marcelo", "max", "michel", "miguel", "mike2", "norbert", "pablo",
    "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "steph2", "steph3", "travis", "victor",
    "zac",
)  # fmt: skip


class EspeakError(ValueError):
    """espeak-ng is not there or did not speak; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EspeakRequest:
    """What to say and how. voice: 'accent' or 'accent+variant'. rate: words a minute. pitch, range: 0 to 99.

    seed: what the noise in its hisses derives from.
    """

    text: str
    voice: str = "en-us"
    rate: int = 165
    pitch: int = 50
    range: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise EspeakError("text is empty: there is nothing to say")
        for name, low, high in (
            ("rate", 80, 450),
            ("pitch", 0, 99),
            ("range", 0, 99),
            ("seed", 0, 2**31 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise EspeakError(f"{name} must lie in [{low}, {high}], got {getattr(self, name)}")


def espeak_available() -> bool:
    """True when the extra 'world' is installed."""
    return importlib.util.find_spec("espeakng_loader") is not None


def check_voice(name: str, speech: str) -> None:
    """Refuse the value `speech` of the setting `name` where it asks for a voice that is not installed."""
    if speech == "espeak" and not espeak_available():
        raise UserError(
            f"{name}=espeak needs the extra 'world' (pip install 'galatea[world]'); {name}=formants babbles without it"
        )


def held_out_voice(variant: str) -> bool:
    """True for the tenth of VARIANTS or so that training never hears."""
    return hashlib.sha256(f"voice {variant}".encode()).digest()[0] % 8 == 0


def sample_request(text: str, *, held_out: bool, generator: torch.Generator) -> EspeakRequest:
    """A random person (held out or not), accent, rate and pitch for a text."""

    def uniform() -> float:
        return float(torch.rand((), generator=generator))

    people = [name for name in VARIANTS if held_out_voice(name) == held_out]
    accents = torch.tensor(list(ACCENTS.values()))
    accent = list(ACCENTS)[int(torch.multinomial(accents, 1, generator=generator))]
    return EspeakRequest(
        text=text,
        voice=f"{accent}+{people[int(uniform() * len(people))]}",
        rate=int(125 + 85 * uniform()),
        pitch=int(25 + 55 * uniform()),
        range=int(25 + 55 * uniform()),
        seed=int(torch.randint(2**31 - 1, (), generator=generator)),
    )


def espeak(request: EspeakRequest) -> Speech:
    """Speak. Equal requests give equal samples.

    Raises:
        EspeakError: the extra is not installed, or espeak-ng knows no such voice or fails.
    """
    if not espeak_available():
        raise EspeakError(
            "speech of the world needs espeak-ng: pip install 'galatea[world]', or use the formant voice"
        )
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_WORKER)],
            input=json.dumps(asdict(request)).encode(),
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EspeakError(f"espeak-ng took more than {_TIMEOUT:g} s to say {request.text[:60]!r}") from error
    if done.returncode != 0:
        raise EspeakError(f"espeak-ng failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    header, _, raw = done.stdout.partition(b"\n")
    answer = json.loads(header)
    samples = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
    if not len(samples):
        raise EspeakError(f"espeak-ng made no sound of {request.text[:60]!r} with the voice {request.voice}")
    audio = soxr.resample(samples, answer["rate"], SAMPLE_RATE)
    return Speech(
        audio=torch.from_numpy(np.clip(audio, -1, 1)),
        phones=_phones(answer["events"], samples, answer["rate"]),
        text=request.text,
        voice=request.voice,
    )


def _phones(events: list[tuple[int, str]], samples: np.ndarray, rate: int) -> tuple[Phone, ...]:
    """Each phoneme lasts until the next begins. espeak may name two at one place: the first has no time then.

    espeak announces a voiceless stop at its burst. The lips are shut in the silence before: the stop is moved there,
    and what follows its burst goes to the next sound.
    """
    length = len(samples)
    begins = [min(sample, length) for sample, _ in events] + [length]
    for i, (_, name) in enumerate(events):
        if name.lstrip("ˈˌ")[:1] in _VOICELESS_STOPS and begins[i + 1] > begins[i]:
            burst = begins[i]
            reach = _CLOSURE if i and events[i - 1][1] else _CLOSURE_AFTER_PAUSE
            earliest = max(burst - int(reach * rate), (begins[i - 1] + burst) // 2 if i else 0)
            begins[i] = _silence_before(samples, burst, earliest, rate)
            if len(visemes_of(name)) == 1:  # an affricate hisses on
                begins[i + 1] = min(begins[i + 1], burst + int(_RELEASE * rate))
    return tuple(
        Phone(name, start / rate, stop / rate)
        for (_, name), start, stop in zip(events, begins, begins[1:], strict=False)
        if stop > start
    )


def _silence_before(samples: np.ndarray, burst: int, earliest: int, rate: int) -> int:
    """Where the silence that ends at `burst` begins, in steps of 2.5 ms, not before `earliest`."""
    step, quiet = rate // 400, 0.01 * float(np.abs(samples).max())
    start = burst
    while start - step >= earliest and float(np.abs(samples[start - step : start]).max()) < quiet:
        start -= step
    return start
