"""What a caption says about a head: its words, parsing, phrasing, sampling and held-out combinations."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

GENDERS = ("man", "woman", "boy", "girl")
HAIR_STYLES = ("bald", "short", "long", "bun", "curly", "mohawk", "ponytail")
HAIR_COLORS = ("black", "brown", "blond", "red", "grey", "white", "pink", "blue", "green", "purple")
DYED = ("pink", "blue", "green", "purple")
EYE_COLORS = ("brown", "blue", "green", "grey")
SKIN_TONES = ("pale", "light", "tan", "brown", "dark")
CLOTH_COLORS = (
    "red", "green", "blue", "yellow", "purple", "orange", "pink", "white", "black", "brown", "cyan", "grey",
)  # fmt: skip
GLASSES = ("round", "square")

# A caption may name glasses or a hat without saying which.
PLAIN_GLASSES = "round"
PLAIN_HAT = "red"

_GENDER_WORDS = {
    "man": "man", "guy": "man", "gentleman": "man", "woman": "woman", "lady": "woman",
    "boy": "boy", "girl": "girl", "person": None,
}  # fmt: skip
_STYLE_NOUNS = ("bun", "mohawk", "ponytail")
_NOUNS = {
    **dict.fromkeys(_GENDER_WORDS, "gender"),
    **dict.fromkeys(_STYLE_NOUNS, "style"),
    "hair": "hair", "beard": "beard", "moustache": "moustache", "mustache": "moustache",
    "glasses": "glasses", "spectacles": "glasses", "hat": "hat", "shirt": "shirt", "eyes": "eyes",
    "skin": "skin", "skinned": "skin",
}  # fmt: skip
_SPELLINGS = {"gray": "grey", "blonde": "blond", "ginger": "red", "fair": "light", "tanned": "tan"}
_FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "of",
        "with",
        "and",
        "wearing",
        "in",
        "has",
        "having",
        "who",
        "is",
        "dressed",
        "portrait",
        "picture",
        "photo",
        "bust",
        "head",
        "face",
        "their",
        "his",
        "her",
    ]
)
_CLOSE_UP = re.compile(r"\bclose[\s-]*up\b", re.IGNORECASE)
_ADJECTIVES = tuple(dict.fromkeys((*HAIR_STYLES, *HAIR_COLORS, *CLOTH_COLORS, *SKIN_TONES, *GLASSES)))


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSpec:
    """The attributes of a head that its caption states.

    None means "not said" for gender, skin, hair_style, hair_color, eye_color and shirt; for glasses and hat
    it means that there are none. hair_color also colours brows, beard and moustache, so a bald head may
    have one. close_up: whether the picture is of the face alone; says nothing about the head.
    """

    gender: str | None = None
    skin: str | None = None
    hair_style: str | None = None
    hair_color: str | None = None
    eye_color: str | None = None
    beard: bool = False
    moustache: bool = False
    glasses: str | None = None
    hat: str | None = None
    shirt: str | None = None
    close_up: bool = False

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(
                    f"HeadSpec.{name} must be one of {', '.join(allowed)} or None, got {value!r}"
                )


_ALLOWED = {
    "gender": GENDERS, "skin": SKIN_TONES, "hair_style": HAIR_STYLES, "hair_color": HAIR_COLORS,
    "eye_color": EYE_COLORS, "glasses": GLASSES, "hat": CLOTH_COLORS, "shirt": CLOTH_COLORS,
}  # fmt: skip

# Which attributes an adjective before a noun may set, tried in this order.
_SLOTS = {
    "gender": ("hair_style",), "style": ("hair_color",), "hair": ("hair_style", "hair_color"),
    "beard": ("hair_color",), "moustache": ("hair_color",), "glasses": ("glasses",), "hat": ("hat",),
    "shirt": ("shirt",), "eyes": ("eye_color",), "skin": ("skin",),
}  # fmt: skip


def is_head_caption(caption: str) -> bool:
    """Whether the caption speaks of a person, or of a close-up, which only faces have (so that parse_head is the
    parser to ask)."""
    return _CLOSE_UP.search(caption) is not None or any(
        word in _GENDER_WORDS or word == "portrait" for word in _words(caption)
    )


def parse_head(caption: str) -> HeadSpec:
    """Reads "a portrait of a man with short black hair, a beard and round glasses, wearing a blue shirt" and
    "a close-up of the face of a woman with green eyes".

    A word that is neither known nor a filler, an adjective that does not suit its noun, and an attribute
    given twice with different values are ValueErrors.
    """
    known = (*_NOUNS, *_ADJECTIVES, *_SPELLINGS, "close-up", "closeup")
    text, close_up = _CLOSE_UP.subn(" ", caption)
    found: dict[str, str | bool] = {}
    pending: list[str] = []
    person = False

    def assign(name: str, value: str | bool) -> None:
        if found.get(name, value) != value:
            raise ValueError(
                f"the caption {caption!r} gives {name} twice: {found[name]!r} and {value!r}; keep one of them"
            )
        found[name] = value

    for raw in _words(text):
        word = _SPELLINGS.get(raw, raw)
        if word in _NOUNS:
            kind = _NOUNS[word]
            for adjective in pending:
                assign(_slot(caption, adjective, kind, word), adjective)
            pending.clear()
            if kind == "gender":
                person = True
                if (gender := _GENDER_WORDS[word]) is not None:
                    assign("gender", gender)
            elif kind == "style":
                assign("hair_style", word)
            elif kind in ("beard", "moustache"):
                assign(kind, True)
            elif kind == "glasses":
                found.setdefault("glasses", PLAIN_GLASSES)
            elif kind == "hat":
                found.setdefault("hat", PLAIN_HAT)
        elif word == "bald":
            # "bald" may also stand alone: "a man who is bald", "a man with a bald head".
            assign("hair_style", word)
        elif word in _ADJECTIVES:
            pending.append(word)
        elif word not in _FILLERS:
            close = difflib.get_close_matches(word, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            only = " A close-up is of a person's face." if close_up else ""
            raise ValueError(
                f"unknown word {raw!r} in the head caption {caption!r}{hint}{only} Known words: {', '.join(known)}"
            )
    if pending:
        raise ValueError(f"the caption {caption!r} ends with {pending[0]!r} and no noun after it")
    if not person:
        raise ValueError(f"the caption {caption!r} names no person; use one of {', '.join(_GENDER_WORDS)}")
    return HeadSpec(**found, close_up=close_up > 0)  # pyright: ignore[reportArgumentType]


def _words(caption: str) -> list[str]:
    return re.findall(r"[^\s,.;:!?\-]+", caption.lower())


def _slot(caption: str, adjective: str, kind: str, noun: str) -> str:
    for name in _SLOTS[kind]:
        if adjective in _ALLOWED[name]:
            return name
    allowed = [word for name in _SLOTS[kind] for word in _ALLOWED[name]]
    raise ValueError(
        f"{adjective!r} cannot describe {noun!r} in the caption {caption!r}; allowed: {', '.join(allowed)}"
    )


_LEADS = ("a portrait of ", "a portrait of ", "a portrait of ", "portrait of ", "a bust of ", "")
# The longer one is rare: it leaves a short-sighted text encoder less to read.
_CLOSE_UP_LEADS = (*("a close-up of ",) * 4, "close-up of ", "a close-up of the face of ")


def head_caption(spec: HeadSpec, rng: torch.Generator | None = None) -> str:
    """The spec in words; parse_head reads the same spec back. Without rng always the same phrasing."""
    with_hat = f"a {_plain(spec.hat)} hat" if spec.hat else None
    with_shirt = f"a {_plain(spec.shirt)} shirt" if spec.shirt else None
    style, color = spec.hair_style, spec.hair_color
    hair = None
    if style in _STYLE_NOUNS:
        forms = [f"{_article(color or style)} {color} {style}", f"{color} hair in a {style}"] if color else []
        hair = _pick(rng, forms or [f"a {style}", f"hair in a {style}"])
    elif style == "bald":
        hair = None
    elif style or color:
        hair = " ".join(word for word in (style, color, "hair") if word)
    # A bald head says its hair colour through the beard; every other one through the hair.
    tint = f"{color} " if color and style == "bald" else ""
    features = [f"{spec.skin} skin" if spec.skin else None, hair]
    features += [f"{spec.eye_color} eyes" if spec.eye_color else None]
    features += [f"a {tint}beard" if spec.beard else None, f"a {tint}moustache" if spec.moustache else None]
    features += [f"{spec.glasses} glasses" if spec.glasses else None]
    said = [feature for feature in features if feature]
    if rng is not None and len(said) > 1 and _uniform(rng) < 0.3:
        said = [said[i] for i in torch.randperm(len(said), generator=rng, device=rng.device).tolist()]
    person = spec.gender or "person"
    if style == "bald":
        person = f"bald {person}"
    text = f"{_pick(rng, _CLOSE_UP_LEADS if spec.close_up else _LEADS)}a {person}"
    if said:
        text += " with " + _join(said)
    worn = [item for item in (with_hat, with_shirt) if item]
    if worn:
        verb = _pick(rng, ["wearing", "wearing", "in"])
        text += (", " if said else " ") + f"{verb} " + _join(worn)
    return text


def _plain(word: str | None) -> str:
    return word or ""


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _uniform(rng: torch.Generator) -> float:
    return float(torch.rand((), generator=rng, device=rng.device))


def _pick(rng: torch.Generator | None, options: Sequence[str]) -> str:
    """One of the options, each as likely as the other; the first without rng."""
    if rng is None:
        return options[0]
    return options[int(torch.randint(len(options), (), generator=rng, device=rng.device))]


_STYLES_BY_GENDER = {
    "man": ("short", "short", "short", "bald", "bald", "curly", "curly", "mohawk", "long", "ponytail", "bun"),
    "woman": ("long", "long", "bun", "bun", "curly", "curly", "ponytail", "ponytail", "short", "mohawk"),
    "boy": ("short", "short", "short", "curly", "curly", "mohawk", "long"),
    "girl": ("long", "long", "ponytail", "ponytail", "bun", "curly", "short"),
}
_NATURAL = tuple(color for color in HAIR_COLORS if color not in DYED)


def sample_head(rng: torch.Generator) -> HeadSpec:
    """A random spec, held out or not; some attributes stay unsaid."""

    def chance(probability: float) -> bool:
        return _uniform(rng) < probability

    gender = _pick(rng, ("man", "man", "man", "woman", "woman", "woman", "boy", "girl"))
    style = _pick(rng, _STYLES_BY_GENDER[gender])
    beard, moustache = (gender == "man" and chance(0.35)), (gender == "man" and chance(0.3))
    color = _pick(rng, _NATURAL if chance(0.65) else DYED)
    colored = chance(0.92) and (style != "bald" or beard or moustache)
    return HeadSpec(
        gender=gender,
        skin=_pick(rng, SKIN_TONES) if chance(0.45) else None,
        hair_style=style if chance(0.95) or style == "bald" else None,
        hair_color=color if colored else None,
        eye_color=_pick(rng, EYE_COLORS) if chance(0.35) else None,
        beard=beard,
        moustache=moustache,
        glasses=_pick(rng, GLASSES) if chance(0.33) else None,
        hat=_pick(rng, CLOTH_COLORS) if chance(0.25) else None,
        shirt=_pick(rng, CLOTH_COLORS) if chance(0.7) else None,
    )


def sample_close_up(rng: torch.Generator) -> HeadSpec:
    """A random close-up, held out or not, that says nothing of the shirt, which it does not show."""
    return replace(sample_head(rng), shirt=None, close_up=True)


def fill(spec: HeadSpec, rng: torch.Generator | None = None) -> HeadSpec:
    """The spec with every unsaid attribute filled: canonically without rng, else at random.

    A random fill never completes a held-out combination which the caption itself did not name.
    """
    if rng is None:
        gender = spec.gender or "man"
        style = (
            spec.hair_style or {"man": "short", "woman": "long", "boy": "short", "girl": "ponytail"}[gender]
        )
        return replace(
            spec,
            gender=gender,
            skin=spec.skin or "light",
            hair_style=style,
            hair_color=spec.hair_color or "brown",
            eye_color=spec.eye_color or "blue",
            shirt=spec.shirt or {"man": "blue", "woman": "red", "boy": "green", "girl": "yellow"}[gender],
        )
    gender = spec.gender or _pick(rng, GENDERS)
    for _ in range(64):
        filled = replace(
            spec,
            gender=gender,
            skin=spec.skin or _pick(rng, SKIN_TONES),
            hair_style=spec.hair_style or _pick(rng, _STYLES_BY_GENDER[gender]),
            hair_color=spec.hair_color or _pick(rng, _NATURAL),
            eye_color=spec.eye_color or _pick(rng, EYE_COLORS),
            shirt=spec.shirt or _pick(rng, CLOTH_COLORS),
        )
        if held_out_head(spec) or not held_out_head(filled):
            return filled
    raise AssertionError("every filling is held out: the held-out table is wrong")


_Combination = tuple[str, ...]


def held_out_head(spec: HeadSpec) -> bool:
    """Whether the spec belongs to the combinations kept out of training.

    Held out are 10 % of the (hair style, hair colour) pairs, and 10 % of the (glasses, beard and moustache,
    hat) triples with a hat and of those without. The plain face (none of the three) is never held out.
    """
    hair = (spec.hair_style or "", spec.hair_color or "")
    worn = (spec.glasses or "", _facial(spec.beard, spec.moustache), spec.hat or "")
    return hair in _HELD_OUT or worn in _HELD_OUT


def _facial(beard: bool, moustache: bool) -> str:
    return "+".join(name for name, there in (("beard", beard), ("moustache", moustache)) if there)


def _tenth(combinations: list[_Combination], salt: str) -> list[_Combination]:
    def rank(combination: _Combination) -> str:
        return hashlib.sha256("/".join((salt, *combination)).encode()).hexdigest()

    return sorted(combinations, key=rank)[: max(1, round(len(combinations) / 10))]


def _held_out_table() -> frozenset[_Combination]:
    # Bald heads are left out: their "hair colour" is only a beard's.
    hair: list[_Combination] = list(product(HAIR_STYLES[1:], HAIR_COLORS))
    facial = [_facial(beard, moustache) for beard in (False, True) for moustache in (False, True)]
    bare = [(*pair, "") for pair in product(("", *GLASSES), facial) if any(pair)]
    hatted = list(product(("", *GLASSES), facial, CLOTH_COLORS))
    salt = "galatea-heads-9"
    return frozenset((*_tenth(hair, salt), *_tenth(bare, salt), *_tenth(hatted, salt)))


_HELD_OUT = _held_out_table()
