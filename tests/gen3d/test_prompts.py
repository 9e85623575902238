"""View-dependent prompts and the choice of a background."""

from __future__ import annotations

import pytest

from gen3d.prompts import (
    BACKGROUNDS,
    COLOR_WORDS,
    contrast_background,
    direction,
    on_background,
    view_prompts,
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


def test_view_prompts_only_where_the_model_knows_no_cameras() -> None:
    assert view_prompts("a cat", [0, 180], [0, 0]) == ["a cat, front view", "a cat, back view"]
    assert view_prompts("a cat", [0, 180], [0, 0], num_views=4) == ["a cat"]
    with pytest.raises(ValueError, match="2 azimuths"):
        view_prompts("a cat", [0, 1], [0])


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
