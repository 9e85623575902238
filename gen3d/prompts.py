"""What is said to the model: view-dependent prompts, and a background that the object stands out from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Color = tuple[float, float, float]

# Plain sRGB values of the colour words that people use most.
COLOR_WORDS: dict[str, Color] = {
    "red": (0.83, 0.13, 0.13),
    "scarlet": (0.85, 0.14, 0.06),
    "crimson": (0.72, 0.05, 0.2),
    "green": (0.16, 0.6, 0.2),
    "lime": (0.55, 0.85, 0.15),
    "olive": (0.42, 0.45, 0.12),
    "blue": (0.13, 0.3, 0.8),
    "navy": (0.07, 0.1, 0.4),
    "teal": (0.05, 0.5, 0.5),
    "turquoise": (0.2, 0.8, 0.75),
    "cyan": (0.1, 0.78, 0.85),
    "yellow": (0.95, 0.82, 0.12),
    "gold": (0.83, 0.66, 0.2),
    "golden": (0.83, 0.66, 0.2),
    "blonde": (0.88, 0.76, 0.45),
    "blond": (0.88, 0.76, 0.45),
    "orange": (0.95, 0.5, 0.1),
    "purple": (0.5, 0.18, 0.65),
    "violet": (0.5, 0.25, 0.75),
    "magenta": (0.85, 0.1, 0.7),
    "pink": (0.95, 0.5, 0.68),
    "brown": (0.42, 0.25, 0.12),
    "beige": (0.86, 0.78, 0.64),
    "cream": (0.95, 0.9, 0.77),
    "white": (0.95, 0.95, 0.95),
    "black": (0.06, 0.06, 0.06),
    "grey": (0.5, 0.5, 0.5),
    "gray": (0.5, 0.5, 0.5),
    "silver": (0.72, 0.72, 0.74),
}


# Backgrounds to choose from: hardly ever an object's own colour, and none is dark, for many things have dark parts that
# no prompt names: roofs, wheels, eyes.
BACKGROUNDS: dict[str, Color] = {
    "light blue": (0.74, 0.86, 0.96),
    "pale yellow": (0.98, 0.95, 0.78),
    "pale green": (0.80, 0.92, 0.80),
}
# Where a prompt names all of these.
_FURTHER_BACKGROUNDS: dict[str, Color] = {"pale pink": (0.98, 0.86, 0.89), "light grey": (0.83, 0.83, 0.84)}

# Words that make the colour behind them light, and how far to white that is.
_TINTS, _TINT = ("light", "pale", "pastel", "powder", "baby", "sky"), 0.7
_COLOR = re.compile(rf"\b(?:({'|'.join(_TINTS)})[\s-]*)?({'|'.join(COLOR_WORDS)})\b")

Direction = Literal["front", "side", "back", "overhead"]
# Letters and symbols by their Unicode category that show nothing all the same: Hangul's fillers, Braille's blank.
_UNSEEN = "\u115f\u1160\u3164\uffa0\u2800"

# (prompt, what comes behind it) -> as much of the prompt as the model can read then, and what is left out of it.
Shorten = Callable[[str, str], tuple[str, str]]
# (prompt, view) -> words and phrases of the prompt that contradict the view, such as "smiling" of the back.
Contradicts = Callable[[str, Direction], Sequence[str]]


def is_blank(text: str) -> bool:
    """Whether nothing in `text` shows: white space, control and format characters (a zero-width space, a byte order
    mark), marks without a letter, and blanks that Unicode counts among letters and symbols."""
    return not any(unicodedata.category(c)[0] in "LNPS" and c not in _UNSEEN for c in text)


def direction(
    azimuth_deg: float,
    elevation_deg: float,
    *,
    front_deg: float = 45.0,
    back_deg: float = 45.0,
    overhead_deg: float = 60.0,
) -> Direction:
    """`front`, `side`, `back` or `overhead`: how a camera sees the object.

    front and back reach `front_deg` and `back_deg` to either side of azimuth 0 and 180.
    """
    if elevation_deg > overhead_deg:
        return "overhead"
    turned = abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    if turned <= front_deg:
        return "front"
    return "back" if turned >= 180.0 - back_deg else "side"


def view_clause(view: Direction) -> str:
    """What is put behind a prompt so that a model draws this view."""
    return f", {view} view"


def has_phrase(prompt: str, phrase: str) -> bool:
    """Whether `phrase` stands in `prompt` as whole words, in whatever case."""
    return _phrase(phrase).search(prompt) is not None


def without(prompt: str, phrases: Sequence[str]) -> str:
    """`prompt` less every `phrase` that stands in it as whole words; the rest as it was, but for doubled spaces."""
    for phrase in phrases:
        prompt = _phrase(phrase).sub("", prompt)
    return re.sub(r"\s+(?=[,.;:!?])", "", re.sub(r"\s{2,}", " ", prompt)).strip() if phrases else prompt


def _phrase(phrase: str) -> re.Pattern[str]:
    words = r"\s+".join(map(re.escape, phrase.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


def contrast_background(prompt: str, options: Mapping[str, Color]) -> str:
    """The name of the background in `options` (name to sRGB) whose nearest colour word in `prompt` is farthest.

    Without a colour word in the prompt, and on a tie, the first option. One that the prompt names itself is not taken,
    unless it names them all.
    """
    if not options:
        raise ValueError("options must hold at least one background colour, got none")
    colors = named_colors(prompt)
    if not colors:
        return next(iter(options))
    options = {name: color for name, color in options.items() if not names(prompt, name)} or options

    def nearest(name: str) -> float:
        return min(_distance(options[name], color) for color in colors)

    return max(options, key=nearest)


def named_colors(prompt: str) -> list[Color]:
    """What the colour words of `prompt` mean, in their order; "light blue" is lighter than "blue"."""
    found = []
    for tint, word in _COLOR.findall(prompt.lower()):
        red, green, blue = (value + _TINT * (1.0 - value) * bool(tint) for value in COLOR_WORDS[word])
        found.append((red, green, blue))
    return found


def names(prompt: str, color: str) -> bool:
    """Whether `prompt` has the words of `color`, "light blue" say, in whatever case and however they are joined."""
    return re.search(r"\b" + color.replace(" ", r"[\s-]*") + r"\b", prompt.lower()) is not None


def background_clause(prompt: str, background: str = "auto") -> str:
    """What asks for a plain background behind `prompt`: `background`, or the best of `BACKGROUNDS`.

    A silhouette is found by comparing with the background, so it must not have the object's colour. A prompt that
    speaks of its background is left alone, and so is any with `background` "".
    """
    if not background or speaks_of_background(prompt):
        return ""
    name = background
    if background == "auto":
        all_named = all(names(prompt, name) for name in BACKGROUNDS)
        name = contrast_background(prompt, _FURTHER_BACKGROUNDS if all_named else BACKGROUNDS)
    return f", on a {name} background"


def speaks_of_background(prompt: str) -> bool:
    """Whether `prompt` says itself what is behind the object."""
    return "background" in prompt.lower()


def background_of(text: str) -> Color | None:
    """The colour of the background that `text` asks for as `background_clause` does; None where it is unknown."""
    known = BACKGROUNDS | _FURTHER_BACKGROUNDS
    found = re.search(r"\bon an? ([\w -]+?) background\b", text.lower())
    name = found[1] if found else ""
    return known.get(name) or (named_colors(name) or [None])[0]


def on_background(prompt: str, background: str = "auto") -> str:
    """`prompt` with its `background_clause`."""
    return prompt + background_clause(prompt, background)


@dataclass(frozen=True, kw_only=True)
class Said:
    """text: what a model is told, with the clause for its background, `clause`, at its end. left_out: the end of the
    prompt that it had no room for; "" where all of it is in the text."""

    text: str
    left_out: str
    clause: str = ""


def say(prompt: str, shorten: Shorten, *, background: str = "auto", num_views: int = 1) -> Said:
    """`on_background`, with only as much of a long prompt as leaves room for the clauses that are put behind it: the
    background's, and that of the view where a model makes one at a time (`num_views` 1).

    Where they leave no room for any of it, the prompt is said without them.
    """
    views = _view_clauses(num_views)
    clause = background_clause(prompt, background)
    body, left_out = _shortest(prompt, clause, views, shorten)
    if left_out and not clause and background_clause(body, background):
        # The prompt's own words about its background are among those left out.
        clause = background_clause(body, background)
        body, left_out = _shortest(prompt, clause, views, shorten)
    if is_blank(body):
        clause, (body, left_out) = "", shorten(prompt, "")
    return Said(text=body + clause, left_out=left_out, clause=clause)


def say_source(source: str, suffix: str, said: Said, shorten: Shorten, *, num_views: int = 1) -> Said:
    """What a prompt that is said as `said` shall be told from: `source`, on the same background; where that is "", the
    prompt's own text with as many words of `suffix` behind it as there is room for. The background and the view are
    said whatever room they leave; of a suffix, what is left out counts only where it is all of it."""
    views = _view_clauses(num_views)
    if source:
        clause = "" if speaks_of_background(source) else said.clause
        body, left_out = _shortest(source, clause, views, shorten)
        return Said(text=body + clause, left_out=left_out, clause=clause)
    text, left_out = _shortest(said.text + suffix, "", views, shorten)
    text = text.rstrip(", ")
    if len(text) <= len(said.text):
        return Said(text=said.text, left_out=suffix, clause=said.clause)
    return Said(text=text, left_out="", clause=said.clause)


def _view_clauses(num_views: int) -> list[str]:
    return [""] if num_views > 1 else [view_clause(view) for view in get_args(Direction)]


def _shortest(prompt: str, clause: str, views: Sequence[str], shorten: Shorten) -> tuple[str, str]:
    return min((shorten(prompt, clause + view) for view in views), key=lambda parts: len(parts[0]))


def _distance(first: Color, second: Color) -> float:
    """Largest difference of a channel: what a mask made by comparing with the background has to go by."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))
