"""Close-ups of faces: their captions, and scenes in which the face fills the unit sphere."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from experiments.world import captions, scene_from_caption
from experiments.world.captions import held_out, kind_of, meaning, parse, phrase
from experiments.world.head_spec import HeadSpec, head_caption, sample_close_up
from experiments.world.heads import Rig, landmarks, make_head
from experiments.world.render import REACH
from gen3d.cameras import orbit
from gen3d.meshing import is_watertight

TINY = Path(__file__).parents[3] / "diffusion" / "weights" / "tiny" / "tokenizer"


@pytest.mark.parametrize(
    "caption",
    [
        "a close-up of the face of a woman with green eyes",
        "a close-up of a woman with green eyes",
        "A closeup of a lady with green eyes.",
        "close up of the face of a woman with green eyes",
        "a woman with green eyes, close-up",
        "a Close-Up portrait of a woman with green eyes, on a white background",
    ],
)
def test_close_ups_are_understood(caption: str) -> None:
    assert parse(caption) == HeadSpec(gender="woman", eye_color="green", close_up=True)
    assert kind_of(parse(caption)) == "head"


def test_close_ups_are_said_and_read_back() -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(300):
        spec = sample_close_up(rng)
        assert spec.close_up
        assert spec.shirt is None  # which a close-up does not show
        assert parse(phrase(spec)) == parse(head_caption(spec, rng)) == spec
    shirted = HeadSpec(gender="man", shirt="red", close_up=True)
    assert parse(phrase(shirted)) == shirted
    assert phrase(shirted) == "a close-up of a man wearing a red shirt"


def test_close_ups_mean_something_else_and_are_held_out_as_the_head_they_show() -> None:
    portrait, close = "a portrait of a man with long black hair", "a close-up of a man with long black hair"
    assert held_out(parse(portrait))
    assert held_out(parse(close))
    assert meaning(portrait) != meaning(close)
    rng = np.random.default_rng(2)
    for wanted in (False, True):
        for _ in range(50):
            caption = captions.sample_caption(rng, ("head",), close_up=True, held_out=wanted)
            spec = parse(caption)
            assert isinstance(spec, HeadSpec)
            assert spec.close_up
            assert held_out(spec) == held_out(replace(spec, close_up=False)) == wanted


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a close-up of a red mushroom", "unknown word 'mushroom'.*A close-up is of a person's face"),
        ("a close-up of the face", "names no person"),
        ("a clos-up of a man", "'clos'.*did you mean 'close"),
        ("a red mushrom", "for its face with 'a close-up of'"),
    ],
)
def test_what_is_not_understood_says_what_close_ups_are_of(caption: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(caption)


def test_captions_are_read_to_their_end() -> None:
    """By the text encoder of the embedded model, which knows "close-up" in six pieces and "face" in three."""
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    rng = np.random.default_rng(0)
    said = [
        captions.sample_caption(rng, ("head",), close_up=True, held_out=bool(i % 2), plain=i % 3 == 0)
        for i in range(600)
    ]
    said += [
        longer
        for caption in said
        if captions.is_short(longer := captions.with_background(caption, "light blue"))
    ]
    assert len(said) > 700
    lengths = np.array([len(tokenizer(caption).input_ids) for caption in said])
    assert (lengths <= 32).mean() >= 0.99
    short = [caption for caption in said if "face" not in caption]
    assert 0.7 < len(short) / len(said) < 1
    # Without a look at their length some would be cut off.
    assert not captions.is_short(
        captions.with_background(
            "a close-up of a man with dark skin, short brown hair, blue eyes, a beard and round glasses",
            "grey",
        )
    )


FACES = (
    "a close-up of a woman with long blond hair",
    "a close-up of the face of a man with a beard and square glasses, wearing a blue hat",
    "a close-up of a bald boy",
)


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("caption", FACES)
def test_the_face_fills_the_frame_for_all_proportions(caption: str, seed: int | None) -> None:
    spec = parse(caption)
    assert isinstance(spec, HeadSpec)
    head = make_head(spec, None if seed is None else torch.Generator().manual_seed(seed))
    marks = head.landmarks()
    places, _ = orbit(0.0, 0.0).project(torch.stack(list(marks.values())))
    x, y = dict(zip(marks, places[0, :, 0], strict=True)), dict(zip(marks, places[0, :, 1], strict=True))
    assert float(places.abs().max()) < 1
    assert 0.6 < float(y["chin"]) < 0.95  # y is down
    assert -0.4 < float(y["eye_left"]) < 0.1
    # The eyes lie far apart and are an eighth of the picture each, at least.
    assert 0.5 < float(x["eye_left"] - x["eye_right"]) < 1.1
    eye = next(part for part in head.parts() if part.name == "eye")
    assert eye.params[-1] > 0.16
    assert all(float(point.norm()) < 1.05 for point in marks.values())


@pytest.mark.parametrize("seed", [None, 1])
def test_it_is_the_portrait_seen_from_near(seed: int | None) -> None:
    def person(of: HeadSpec) -> tuple[torch.Tensor, torch.Tensor]:
        return landmarks(of, rng(), rig)["chin"], landmarks(of, rng(), rig)["nose_tip"]

    def rng() -> torch.Generator | None:
        return None if seed is None else torch.Generator().manual_seed(seed)

    rig = Rig(yaw_deg=10, jaw_open=0.5)
    near = HeadSpec(gender="woman", hair_style="curly", close_up=True)
    centre, radius = make_head(near, rng()).face()
    for close, far in zip(person(near), person(replace(near, close_up=False)), strict=True):
        torch.testing.assert_close(close * radius + torch.tensor(centre), far)


def test_pictures_show_all_that_lies_around_the_face() -> None:
    for caption in FACES[:2]:
        scene = scene_from_caption(caption, seed=1)
        cameras = orbit([-35.0, 35.0], [-15.0, 25.0])
        seen = scene.render(cameras, 64).mask
        beyond = replace(scene, reach=1.6 * scene.reach).render(cameras, 64).mask
        assert float((seen - beyond).abs().mean()) < 1e-3
        cut = replace(scene, reach=REACH).render(cameras, 64).mask
        assert float((seen - cut).abs().mean()) > 3e-3


def test_depth_is_that_of_the_camera_moved_near() -> None:
    near = scene_from_caption("a close-up of a bald man").render(orbit(0.0, 0.0), 64)
    spec = parse("a close-up of a bald man")
    assert isinstance(spec, HeadSpec)
    centre, radius = make_head(spec).face()
    camera = orbit(0.0, 0.0)
    c2w = camera.c2w.clone()
    c2w[0, :3, 3] = torch.tensor(centre) + radius * c2w[0, :3, 3]
    far = scene_from_caption("a portrait of a bald man").render(replace(camera, c2w=c2w), 64)
    both = (near.mask[0, 0] > 0.99) & (far.mask[0, 0] > 0.99)
    assert float((near.mask - far.mask).abs().mean()) < 0.005
    off = (near.depth - far.depth / radius)[0, 0][both].abs()
    assert float(off.quantile(0.98)) < 0.01


def test_as_a_solid_it_ends_at_the_unit_sphere_and_is_closed() -> None:
    scene = scene_from_caption("a close-up of a woman with long hair", seed=2)
    around = torch.nn.functional.normalize(
        torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    assert float(scene.sdf(1.01 * around).min()) > 0
    mesh = scene.mesh(64)
    assert is_watertight(mesh)
    assert float(mesh.vertices.norm(dim=-1).max()) < 1.01
    assert mesh.normals is not None
    cut = mesh.vertices.norm(dim=-1) > 0.999
    assert 0.05 < float(cut.float().mean()) < 0.9
    outwards = (mesh.normals * torch.nn.functional.normalize(mesh.vertices, dim=-1)).sum(-1)
    assert float(outwards[cut].quantile(0.05)) > 0.99


def test_other_scenes_end_where_they_ended() -> None:
    for caption in ("a portrait of a bald man", "a red mushroom"):
        scene = scene_from_caption(caption)
        assert scene.reach == REACH
        assert not scene.is_cut
    assert math.isclose(make_head(HeadSpec(gender="man")).reach, REACH)
