"""View-dependent prompts and the choice of a background."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gen3d.prompts import (
    BACKGROUNDS,
    COLOR_WORDS,
    Said,
    background_clause,
    background_of,
    contrast_background,
    direction,
    is_blank,
    named_colors,
    on_background,
    say,
    view_clause,
    without,
)

OPTIONS = {"grey": (0.5, 0.5, 0.5), "white": (0.95, 0.95, 0.95), "blue": (0.13, 0.3, 0.8)}


@pytest.mark.parametrize(
    ("azimuth", "elevation", "expected"),
    [
        (0, 0, "front"), (44, 0, "front"), (-44, 0, "front"), (359, 10, "front"), (90, 0, "side"), (270, 0, "side"),
        (136, 0, "back"), (180, 0, "back"), (-180, 0, "back"), (540, 0, "back"), (10, 61, "overhead"),
    ],
)  # fmt: skip
def test_directions(azimuth: float, elevation: float, expected: str) -> None:
    assert direction(azimuth, elevation) == expected


def test_threshold_of_the_front() -> None:
    assert direction(40, 0, front_deg=30) == "side"


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("a cat, on a light blue background", (0.74, 0.86, 0.96)),
        ("a cat, on a light grey background", (0.83, 0.83, 0.84)),
        ("a cat on an orange background", (0.95, 0.5, 0.1)),
        ("a cat on a busy background", None),
        ("a cat", None),
    ],
)
def test_the_background_that_is_asked_for(text: str, color: tuple[float, float, float] | None) -> None:
    assert background_of(text) == color


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a white cylinder", "blue"), ("a grey mug", "white"), ("a BLUE, white and shiny car", "grey"),
        ("a chair", "grey"), ("", "grey"), ("a man with blond hair", "blue"),
    ],
)  # fmt: skip
def test_background_is_far_from_every_colour_named(prompt: str, expected: str) -> None:
    assert contrast_background(prompt, OPTIONS) == expected


def test_no_options() -> None:
    with pytest.raises(ValueError, match="at least one"):
        contrast_background("a cat", {})


def test_a_background_is_asked_for_once() -> None:
    assert on_background("a red car", "grey") == "a red car, on a grey background"
    assert on_background("a red car on a white background", "grey") == "a red car on a white background"
    assert on_background("a red car", "") == "a red car"


@pytest.mark.parametrize("color", COLOR_WORDS)
def test_the_background_chosen_is_light_and_unlike_the_thing(color: str) -> None:
    """Light, because a roof, a wheel or an eye is dark whatever colour the thing has."""
    prompt = on_background(f"a {color} house")
    name = prompt.removeprefix(f"a {color} house, on a ").removesuffix(" background")
    chosen = BACKGROUNDS[name]
    assert min(chosen) > 0.7
    # Twice what the masks are told to tell apart (`mask_threshold`).
    assert max(abs(a - b) for a, b in zip(chosen, COLOR_WORDS[color], strict=True)) > 0.12


@pytest.mark.parametrize("name", BACKGROUNDS)
@pytest.mark.parametrize("rest", ["", ", cream and white", " on a gold plate", ", black, red and teal"])
def test_a_colour_that_the_prompt_names_is_no_background(name: str, rest: str) -> None:
    for written in (name, name.upper(), name.replace(" ", "-"), name.replace(" ", "")):
        clause = background_clause(f"a {written} cube{rest}")
        assert clause.endswith(" background")
        assert name not in clause
    # What is only meant: "baby blue" is about what "light blue" is.
    tint = {"light blue": "baby blue", "pale yellow": "light yellow", "pale green": "pastel green"}[name]
    assert name not in background_clause(f"a {tint} cube{rest}")


def test_with_every_background_named_there_is_another() -> None:
    clause = background_clause("light blue, pale yellow and pale green blocks")
    assert clause in (", on a pale pink background", ", on a light grey background")


def test_a_tint_is_lighter_than_its_colour() -> None:
    light, plain = named_colors("a light blue cube and a blue one")
    assert all(a >= b for a, b in zip(light, plain, strict=True))
    assert max(abs(a - b) for a, b in zip(light, BACKGROUNDS["light blue"], strict=True)) < 0.1
    assert named_colors("a lightning rod, a whiteboard") == []


def _fit(limit: int) -> Callable[[str, str], tuple[str, str]]:
    """A text encoder that reads `limit` characters, and cuts between any two."""

    def shorten(prompt: str, suffix: str) -> tuple[str, str]:
        end = max(0, limit - len(suffix))
        return prompt[:end], prompt[end:]

    return shorten


@pytest.mark.parametrize("num_views", [1, 4])
@pytest.mark.parametrize("length", [5, 60, 99, 100, 101, 500])
def test_a_long_prompt_makes_room_for_its_clauses(length: int, num_views: int) -> None:
    prompt = "red car " * length
    said = say(prompt, _fit(100), num_views=num_views)
    clause = background_clause(prompt)
    assert said.text.endswith(clause)
    assert said.text.removesuffix(clause) + said.left_out == prompt
    views = [""] if num_views > 1 else [view_clause(view) for view in ("front", "side", "back", "overhead")]
    told = [said.text + view for view in views]
    assert max(map(len, told)) <= 100
    assert (said.left_out == "") == (len(prompt + clause) + (num_views == 1) * len(", overhead view") <= 100)


def test_a_background_in_what_is_left_out_is_asked_for_anew() -> None:
    prompt = "red car " * 20 + "on a white background"
    assert say(prompt, _fit(200), num_views=4).text == prompt
    said = say(prompt, _fit(100), num_views=4)
    assert said.text.endswith(", on a light blue background")
    assert len(said.text) <= 100


@pytest.mark.parametrize(
    "text",
    ["", " \t\n", "\u200b", "\u200b \u2060\ufeff", "\x00\x07\x1b", "\u00ad\u200d\u202e", "\ufe0f\u0301", "\u3164",
     "\u115f\u1160\uffa0", "\u2800", "\u00a0\u3000\u2028", "\U000e0020\U000e007f"],
)  # fmt: skip
def test_text_in_which_nothing_shows_is_blank(text: str) -> None:
    assert is_blank(text)
    for something in ("a", "\u7ea2", "7", "!", "\U0001f344", "e\u0301"):
        assert not is_blank(text + something)


def test_a_text_encoder_without_room_for_clauses_reads_the_prompt() -> None:
    assert say("a red car", _fit(20)) == Said(text="a red car", left_out="")
    assert say("a red car", _fit(100), background="very " * 20) == Said(text="a red car", left_out="")
    assert say("a red, shiny and fast car", _fit(20)) == Said(text="a red, shiny and fas", left_out="t car")


@pytest.mark.parametrize(
    ("prompt", "phrases", "expected"),
    [
        ("a smiling face of a corgi", ["smiling face of a"], "a corgi"),
        ("a smiling face of a corgi", ["Smiling"], "a face of a corgi"),
        ("a smiling  face of a corgi", ["smiling face", "of a"], "a corgi"),
        ("a robot with a visor, red", ["with a visor"], "a robot, red"),
        ("a facet, a face", ["face"], "a facet, a"),
        ("a corgi", [], "a corgi"),
        ("a c++ mug", ["c++"], "a mug"),
    ],
)
def test_words_are_left_out_of_a_prompt(prompt: str, phrases: list[str], expected: str) -> None:
    assert without(prompt, phrases) == expected
