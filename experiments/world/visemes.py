"""Speech sounds to mouth shapes: IPA to the 15 Oculus visemes, and what each viseme does to the rig.

Channels are the rig's lip controls, in the order of CHANNELS.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

VISEMES = ("sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "ih", "oh", "ou")
CHANNELS = (
    "jaw_open", "lips_pucker", "lips_stretch", "lips_press", "lips_funnel", "upper_lip_raise", "lower_lip_raise"
)  # fmt: skip
Channels = tuple[float, float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a viseme moves the lips.

    target: rig values in [0, 1]. strength: how much each channel matters to it against its neighbours, > 0: a 'k'
    leaves the lips to the vowels around it, a 'p' closes them whatever these want. lead, lag: seconds over which its
    pull fades before and after it. fall: the exponent of that, 1 with a long tail, 2 with a short one.
    """

    target: Channels
    strength: Channels
    lead: float
    lag: float
    fall: float = 1.0


# fmt: off
_LOOSE: Channels = (1.2, 0.35, 0.35, 1.0, 0.35, 0.4, 0.6)
_EVEN: Channels = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
SHAPES: dict[str, Shape] = {
    #             jaw   puck  strch press funnl upper lower    strengths in the same order                lead   lag
    "sil": Shape((0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00), (1.5, 1.5, 1.0, 1.0, 1.5, 1.5, 1.0),      0.060, 0.050),
    "PP":  Shape((0.06, 0.05, 0.00, 1.00, 0.00, 0.00, 0.15), (2.5, 0.7, 0.5, 12.0, 3.0, 3.0, 6.0),     0.018, 0.018, 2),
    "FF":  Shape((0.10, 0.00, 0.10, 0.00, 0.00, 0.30, 0.35), (6.0, 1.5, 1.0, 4.0, 4.0, 4.0, 8.0),      0.025, 0.025, 2),
    "TH":  Shape((0.18, 0.00, 0.12, 0.00, 0.00, 0.12, 0.00), (2.5, 0.5, 0.6, 1.0, 0.6, 0.8, 1.0),      0.035, 0.035),
    "DD":  Shape((0.15, 0.00, 0.15, 0.00, 0.00, 0.12, 0.00), _LOOSE,                                   0.035, 0.035),
    "kk":  Shape((0.24, 0.00, 0.05, 0.00, 0.00, 0.08, 0.00), _LOOSE,                                   0.035, 0.035),
    "CH":  Shape((0.11, 0.30, 0.00, 0.00, 0.60, 0.15, 0.00), (2.5, 2.0, 2.0, 1.0, 2.5, 1.0, 1.0),      0.070, 0.040),
    "SS":  Shape((0.06, 0.00, 0.40, 0.00, 0.00, 0.22, 0.00), (3.5, 1.0, 1.0, 1.0, 1.2, 1.0, 1.0),      0.035, 0.035),
    "nn":  Shape((0.17, 0.00, 0.12, 0.00, 0.00, 0.10, 0.00), _LOOSE,                                   0.035, 0.035),
    "RR":  Shape((0.16, 0.40, 0.00, 0.00, 0.35, 0.05, 0.00), (1.4, 1.5, 1.5, 1.0, 1.5, 0.8, 0.8),      0.060, 0.040),
    "aa":  Shape((0.85, 0.00, 0.12, 0.00, 0.00, 0.20, 0.00), (1.4, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),      0.045, 0.045),
    "E":   Shape((0.48, 0.00, 0.38, 0.00, 0.00, 0.20, 0.00), _EVEN,                                    0.045, 0.045),
    "ih":  Shape((0.27, 0.00, 0.58, 0.00, 0.00, 0.22, 0.00), _EVEN,                                    0.045, 0.045),
    "oh":  Shape((0.55, 0.28, 0.00, 0.00, 0.55, 0.05, 0.00), (1.2, 1.5, 1.5, 1.0, 1.5, 1.0, 1.0),      0.080, 0.045),
    "ou":  Shape((0.17, 0.88, 0.00, 0.00, 0.35, 0.00, 0.00), (1.2, 2.0, 2.0, 1.0, 2.0, 1.0, 1.0),      0.090, 0.050),
}
# fmt: on

_LETTERS = {
    "PP": "pbmɓʙ",
    "FF": "fvʋɱɸβⱱ",
    "TH": "θð",
    "DD": "tdɾʈɖɗɽ",
    "kk": "kgɡqɢxɣχʁcɟʝŋħɠɰɴʛ",
    "CH": "ʃʒɕʑʂʐɧ",
    "SS": "sz",
    "nn": "nlɲɳʎɫɭɬɮʟɺ",
    "RR": "ɹrɻʀ",
    "aa": "aɑɐæʌɶ",
    "E": "eɛəɜɘɞ",
    "ih": "iɪɨjɯᵻɿ",
    "oh": "oɔɒɤøœɵ",
    "ou": "uʊʉwʍɥyʏ",
}
_VISEME_OF = {letter: viseme for viseme, letters in _LETTERS.items() for letter in letters}
# A vowel coloured by r turns from the one shape to the other.
_DOUBLE = {"ɚ": "əɹ", "ɝ": "ɜɹ"}
# Breath and glottal stop have no mouth shape of their own: their time goes to a neighbour.
_BREATH = "hɦʔʕ"
VOWELS = frozenset(("aa", "E", "ih", "oh", "ou"))
_BRACKETS = re.compile(r"\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Phone:
    """A speech sound: its IPA name ('' is a pause), and when it sounds, in seconds."""

    name: str
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A mouth shape and its time in seconds. stress: 0 none, 1 secondary, 2 primary (vowels only)."""

    viseme: str
    start: float
    stop: float
    stress: int = 0


def visemes_of(name: str) -> list[tuple[str, float]]:
    """The visemes of an IPA name in order, with shares of its time; empty for breath, pauses and mere marks.

    Long vowels keep their time, diphthongs and affricates share it. '(en)' and the like, which espeak uses to mark a
    change of language, are no sounds.

    Raises:
        ValueError: a letter is not in the table.
    """
    shapes: list[tuple[str, float]] = []
    text = _BRACKETS.sub("", unicodedata.normalize("NFD", name))
    for symbol in "".join(_DOUBLE.get(letter, letter) for letter in text):
        if symbol in "ːˑ" and shapes:
            viseme, share = shapes[-1]
            shapes[-1] = (viseme, share + (0.8 if symbol == "ː" else 0.4))
        elif symbol in _VISEME_OF:
            shapes.append((_VISEME_OF[symbol], 1.0))
        elif symbol in _BREATH or not _is_letter(symbol):
            continue
        else:
            raise ValueError(f"{symbol!r} (U+{ord(symbol):04X}) of the phoneme {name!r} has no viseme")
    total = sum(share for _, share in shapes)
    return [(viseme, share / total) for viseme, share in shapes]


def _is_letter(symbol: str) -> bool:
    # Stress, tone, length, nasality, secondary articulation: modifiers of the letter before.
    return unicodedata.category(symbol) in ("Ll", "Lo", "Lu")


def _stress(name: str) -> int:
    return 2 if "ˈ" in name else 1 if "ˌ" in name else 0


def segments_of(phones: Sequence[Phone], duration: float) -> list[Segment]:
    """Mouth shapes that fill 0 ... duration seconds without gaps; where no phone sounds, 'sil'.

    phones: in order of time, not overlapping.

    Raises:
        ValueError: they overlap, run backwards, or leave the sound.
    """
    segments: list[Segment] = []
    at = 0.0
    breath = None  # Since when a breath waits for the sound that follows it.
    for phone in phones:
        if not at - 1e-6 <= phone.start <= phone.stop <= duration + 1e-6:
            raise ValueError(
                f"phones must follow one another within 0 ... {duration:.3f} s, got {phone} after {at:.3f} s"
            )
        shapes = visemes_of(phone.name) if phone.stop > phone.start else []
        if shapes:
            start = phone.start if breath is None else breath
            length = phone.stop - start
            if start > at + 1e-6:
                segments.append(Segment("sil", at, start))
            for viseme, share in shapes:
                stop = start + share * length
                segments.append(Segment(viseme, start, stop, _stress(phone.name) if viseme in VOWELS else 0))
                start = stop
            at, breath = phone.stop, None
        elif any(symbol in _BREATH for symbol in phone.name):
            breath = phone.start if breath is None else breath
        else:
            breath = None
    if duration > at + 1e-6:
        segments.append(Segment("sil", at, duration))
    return [s for s in segments if s.stop > s.start]
