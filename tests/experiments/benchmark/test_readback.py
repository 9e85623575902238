"""Reading captions back: the right questions, the right sums, and true pictures well above chance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion.backbone import load
from experiments.benchmark.multiview_scores import Judge, TruePictures, frechet_scores, true_pictures
from experiments.benchmark.readback import Question, Reader, colors_exchanged, questions, ranks, read_back
from experiments.world.captions import COLORS, THINGS, parse, phrase, sample_caption
from gen3d.cameras import ring

CLAUSE = ", on a light grey background"
PAIR = "a blue cone left of a yellow cube"


def by_name(prompt: str) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for question in questions(prompt):
        found.setdefault(question.name, []).append(question)
    return found


def right(question: Question) -> tuple[str, ...]:
    return question.options[question.answer]


def test_questions_about_one_thing_are_all_things_times_all_colours() -> None:
    asked = by_name(f"an orange duck{CLAUSE}")
    (thing,), (color,) = asked["thing"], asked["color"]
    assert (len(thing.options), len(color.options)) == (len(THINGS), len(COLORS))
    every = {caption for option in thing.options for caption in option}
    assert every == {caption for option in color.options for caption in option}
    assert len(every) == len(THINGS) * len(COLORS)
    assert all(caption.endswith(CLAUSE) for caption in every)
    # What the two right answers share is the caption itself.
    assert set(right(thing)) & set(right(color)) == {f"an orange duck{CLAUSE}"}
    assert all("duck" in caption for caption in right(thing))


def test_questions_about_a_pair() -> None:
    asked = by_name(PAIR)
    assert {name: len(each) for name, each in asked.items()} == {
        "thing": 2, "color": 2, "colors_bound": 1, "things_bound": 1, "places": 1,
    }  # fmt: skip
    assert all(right(question) == (PAIR,) for each in asked.values() for question in each)
    wrong = {name: asked[name][0].options[1] for name in ("colors_bound", "things_bound", "places")}
    assert wrong == {
        "colors_bound": ("a yellow cone left of a blue cube",),
        "things_bound": ("a blue cube left of a yellow cone",),
        "places": ("a yellow cube left of a blue cone",),
    }
    assert "a blue duck left of a yellow cube" in [option[0] for option in asked["thing"][0].options]
    assert "a blue cone left of a pink cube" in [option[0] for option in asked["color"][1].options]


def test_exchanges_that_change_nothing_are_not_asked() -> None:
    assert not {"places"} & by_name("a red cube next to a green ball").keys()
    assert not {"colors_bound"} & by_name("a red cube on a red table").keys()
    assert colors_exchanged("a red cube on a red table") is None
    assert colors_exchanged("a red cube") is None
    assert colors_exchanged("a portrait of a man") is None
    assert colors_exchanged(PAIR + CLAUSE) == f"a yellow cone left of a blue cube{CLAUSE}"


def test_questions_about_a_head_are_the_colours_it_names() -> None:
    asked = questions("a portrait of a girl with long black hair, wearing a blue hat and a red shirt")
    assert {question.name for question in asked} == {"color"}
    assert len(asked) == 3
    assert questions("a mushroom") == []


def test_plain_words_are_read_back_as_the_same() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(200):
        spec = parse(sample_caption(rng))
        assert parse(phrase(spec)) == spec


def test_ranks_marginalise_and_count_ties_against_the_right_one() -> None:
    a, b, c = ([1.0, 0.0], [0.0, 1.0], [0.995, 0.0])
    picture = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    def near(*captions: list[float]) -> Tensor:
        return picture @ torch.tensor(captions).T

    # One caption is nearer than either of two others, but not than both of them together.
    assert ranks([near(a), near(c)], 0).tolist() == [0, 1]
    assert ranks([near(a), near(c, c)], 0).tolist() == [1, 1]
    assert ranks([near(b), near(a)], 0).tolist() == [1, 0]
    assert ranks([near(c), near(c), near(b)], 0).tolist() == [1, 2]


def test_shares_are_over_views_and_questions_of_one_name(tiny_weights: Path) -> None:
    reader = Reader(load(tiny_weights))
    captions = ["a red sphere", "a blue cube", "a green cone"]
    vectors = reader.captions(captions)
    assert torch.equal(vectors, reader.captions(captions))
    assert torch.equal(vectors[1:2], reader.captions(captions[1:2]))

    def ask(name: str, answer: int) -> Question:
        return Question(name=name, options=tuple((caption,) for caption in captions), answer=answer)

    # Captions stand for the pictures: each is nearest to itself.
    scores = read_back(reader, vectors, [ask("thing", 0), ask("thing", 1), ask("color", 2)])
    assert scores == {"thing": pytest.approx(1 / 3), "thing_top5": 1.0, "color": pytest.approx(1 / 3)}


def test_true_pictures_are_read_back_well_above_chance(tiny_weights: Path) -> None:
    captions = [
        "a red sphere", "a green table", "a yellow house", "a blue torus", "a pink cat", "a purple mug",
        "an orange cone", "a white snowman", "a brown chair", "a cyan rocket",
    ]  # fmt: skip
    prompts = [caption + CLAUSE for caption in captions]
    cameras = ring(2)
    judge = Judge(Reader(load(tiny_weights)), prompts, cameras)
    scores = []
    for index, prompt in enumerate(prompts):
        truth = true_pictures(prompt, cameras, 128)
        scores.append(judge.score(index, truth.images, truth)[0])
    mean = {key: sum(float(each[key] or 0) for each in scores) / len(scores) for key in scores[0]}
    assert mean["color"] > 0.7  # chance is 1 / 12
    assert mean["thing_top5"] > 0.5  # chance is 5 / 25
    assert mean["thing"] > 0.1  # chance is 1 / 25
    assert mean["r_precision"] >= 0.75
    assert mean["silhouette_iou"] > 0.9
    assert mean["background"] == 1.0
    assert judge.score(0, torch.zeros(2, 3, 128, 128), truth)[0]["background"] is False


def test_binding_by_pixels_asks_which_truth_is_nearer(tiny_weights: Path) -> None:
    cameras = ring(2)
    exchanged = colors_exchanged(PAIR)
    assert exchanged is not None
    right, wrong = (true_pictures(prompt, cameras, 128) for prompt in (PAIR, exchanged))
    truth = TruePictures(images=right.images, depth=right.depth, exchanged=wrong.images)
    judge = Judge(Reader(load(tiny_weights)), [PAIR], cameras)
    assert judge.score(0, 0.3 + 0.5 * right.images, truth)[0]["colors_bound_pixels"] == 1.0
    assert judge.score(0, wrong.images, truth)[0]["colors_bound_pixels"] == 0.0
    assert "colors_bound_pixels" not in judge.score(0, right.images, right)[0]


def test_frechet_scores_are_of_groups_and_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = {index: torch.randn(4, 8, generator=generator) for index in range(4)}
    sets = {
        "truth": truth,
        "samples": {index: rows + 1.0 for index, rows in truth.items()},
        "few": {0: truth[0]},
    }
    found = frechet_scores({"things": [0, 1], "pairs": [2, 3]}, sets, "truth")
    assert found["things"].keys() == {"samples", "few"}
    assert found["pairs"].keys() == {"samples"}
    assert found["pairs"]["samples"] == pytest.approx(8.0, rel=1e-4)
