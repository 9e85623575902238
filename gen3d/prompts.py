"""What is said to the model: view-dependent prompts, and a background that the object stands out from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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


def direction(
    azimuth_deg: float,
    elevation_deg: float,
    *,
    front_deg: float = 45.0,
    back_deg: float = 45.0,
    overhead_deg: float = 60.0,
) -> str:
    """``front``, ``side``, ``back`` or ``overhead``: how a camera sees the object.

    front and back reach ``front_deg`` and ``back_deg`` to either side of azimuth 0 and 180.
    """
    if elevation_deg > overhead_deg:
        return "overhead"
    turned = abs((azimuth_deg + 180.0) % 360.0 - 180.0)
    if turned <= front_deg:
        return "front"
    return "back" if turned >= 180.0 - back_deg else "side"


def view_prompts(
    prompt: str, azimuths_deg: Sequence[float], elevations_deg: Sequence[float], num_views: int = 1
) -> list[str]:
    """One prompt a view, ``prompt, front view`` and so on (DreamFusion's remedy for two-faced objects).

    A multiview backbone (``num_views`` above 1) knows its cameras: its views get the one prompt as it is.
    """
    if len(azimuths_deg) != len(elevations_deg):
        raise ValueError(
            f"got {len(azimuths_deg)} azimuths and {len(elevations_deg)} elevations; give as many of both"
        )
    if num_views > 1:
        return [prompt]
    return [f"{prompt}, {direction(a, e)} view" for a, e in zip(azimuths_deg, elevations_deg, strict=True)]


def contrast_background(prompt: str, options: Mapping[str, Color]) -> str:
    """The name of the background in ``options`` (name to sRGB) whose nearest colour word in ``prompt`` is farthest.

    Without a colour word in the prompt, and on a tie, the first option.
    """
    if not options:
        raise ValueError("options must hold at least one background colour, got none")
    words = re.findall(r"[a-z]+", prompt.lower())
    colors = [COLOR_WORDS[word] for word in words if word in COLOR_WORDS]
    if not colors:
        return next(iter(options))

    def nearest(name: str) -> float:
        return min(_distance(options[name], color) for color in colors)

    return max(options, key=nearest)


def on_background(prompt: str, background: str = "auto") -> str:
    """``prompt`` with a clause that asks for a plain background: ``background``, or the best of ``BACKGROUNDS``.

    A silhouette is found by comparing with the background, so it must not have the object's colour. A prompt that
    speaks of its background is left alone, and so is any with ``background`` "".
    """
    if not background or "background" in prompt.lower():
        return prompt
    name = contrast_background(prompt, BACKGROUNDS) if background == "auto" else background
    return f"{prompt}, on a {name} background"


def _distance(first: Color, second: Color) -> float:
    """Largest difference of a channel: what a mask made by comparing with the background has to go by."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))
