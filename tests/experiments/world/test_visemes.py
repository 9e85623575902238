from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.world.coarticulation import Articulation, lip_movement
from experiments.world.formants import SOUNDS
from experiments.world.head_shape import Rig
from experiments.world.visemes import CHANNELS, SHAPES, VISEMES, Phone, Segment, segments_of, visemes_of

JAW, PUCKER, STRETCH, PRESS = (
    CHANNELS.index(f) for f in ("jaw_open", "lips_pucker", "lips_stretch", "lips_press")
)


def _phones(*names: str, seconds: float = 0.1, start: float = 0.0) -> list[Phone]:
    return [Phone(n, start + seconds * i, start + seconds * (i + 1)) for i, n in enumerate(names)]


def test_the_fifteen_visemes_have_shapes_the_rig_can_take() -> None:
    assert len(VISEMES) == 15
    assert set(SHAPES) == set(VISEMES)
    for shape in SHAPES.values():
        Rig(**dict(zip(CHANNELS, shape.target, strict=True)))
        assert min(shape.strength) > 0


@pytest.mark.parametrize(
    ("name", "visemes"),
    [
        ("p", ["PP"]), ("b", ["PP"]), ("m", ["PP"]), ("f", ["FF"]), ("v", ["FF"]), ("θ", ["TH"]), ("ð", ["TH"]),
        ("t", ["DD"]), ("ɾ", ["DD"]), ("k", ["kk"]), ("ŋ", ["kk"]), ("tʃ", ["DD", "CH"]), ("ʒ", ["CH"]),
        ("s", ["SS"]), ("n", ["nn"]), ("l", ["nn"]), ("ɹ", ["RR"]), ("ɑː", ["aa"]), ("ˈæ", ["aa"]), ("ɛ", ["E"]),
        ("iː", ["ih"]), ("j", ["ih"]), ("ɔ", ["oh"]), ("uː", ["ou"]), ("w", ["ou"]), ("ˈaʊ", ["aa", "ou"]),
        ("ɔɪ", ["oh", "ih"]), ("ɚ", ["E", "RR"]), ("ˈɔːɹ", ["oh", "RR"]), ("t̪", ["DD"]), ("ɔ̃", ["oh"]),
        ("ũ", ["ou"]), ("u\u0303", ["ou"]), ("ç", ["kk"]), ("sʲ", ["SS"]), ("h", []), ("ʔ", []), ("", []),
        ("(en)", []), ("ˈ", []), ("a5", ["aa"]),
    ],
)  # fmt: skip
def test_ipa_to_visemes(name: str, visemes: list[str]) -> None:
    shapes = visemes_of(name)
    assert [viseme for viseme, _ in shapes] == visemes
    assert not shapes or sum(share for _, share in shapes) == pytest.approx(1)


def test_length_marks_give_time_and_unknown_letters_are_named() -> None:
    (_, long), (_, short) = visemes_of("ɔːɪ")
    assert long > short
    with pytest.raises(ValueError, match=r"'щ' \(U\+0449\)"):
        visemes_of("aщ")


def test_segments_fill_the_time() -> None:
    phones = [Phone("h", 0.2, 0.25), Phone("ˈaɪ", 0.25, 0.45), Phone("", 0.45, 0.6), Phone("ə", 0.6, 0.6)]
    segments = segments_of([*phones, Phone("m", 0.7, 0.8)], 1.0)
    assert [s.viseme for s in segments] == ["sil", "aa", "ih", "sil", "PP", "sil"]
    assert segments[1].start == pytest.approx(0.2)  # the breath already has the vowel's mouth
    assert [s.stress for s in segments] == [0, 2, 2, 0, 0, 0]
    assert segments[0].start == 0
    assert segments[-1].stop == 1.0
    for bad in ([Phone("a", 0.5, 0.7), Phone("b", 0.6, 0.8)], [Phone("a", 0.9, 1.2)], [Phone("a", 0.3, 0.2)]):
        with pytest.raises(ValueError, match="follow one another"):
            segments_of(bad, 1.0)
    assert segments_of([], 1.0) == [Segment("sil", 0.0, 1.0)]


@given(
    names=st.lists(st.sampled_from(sorted(SOUNDS)), min_size=1, max_size=12),
    seconds=st.floats(0.02, 0.3),
    after=st.floats(0.0, 0.5),
)
def test_segments_never_leave_gaps_and_lips_never_leave_the_rig(
    names: list[str], seconds: float, after: float
) -> None:
    duration = len(names) * seconds + after
    segments = segments_of(_phones(*names, seconds=seconds), duration)
    assert segments[0].start == 0
    assert segments[-1].stop == pytest.approx(duration)
    for one, following in itertools.pairwise(segments):
        assert one.stop == pytest.approx(following.start)
    lips = lip_movement(segments, torch.linspace(0, duration, 50))
    assert lips.shape == (50, len(CHANNELS))
    assert torch.isfinite(lips).all()
    assert lips.min() >= 0
    assert lips.max() <= 1


def test_one_long_shape_is_reached() -> None:
    for viseme in VISEMES:
        lips = lip_movement([Segment(viseme, 0.0, 1.0)], torch.tensor([0.5]))[0]
        target = torch.tensor(SHAPES[viseme].target)
        if viseme in ("aa", "E", "ih", "oh", "ou"):
            target[JAW] *= 0.85  # unstressed
        assert torch.allclose(lips, target, atol=1e-6), viseme


def test_dominance_by_the_formula() -> None:
    """Two vowels, a time between them, one channel: Cohen and Massaro's weighted mean by hand."""
    a, e = Segment("aa", 0.0, 0.2, 2), Segment("E", 0.2, 0.4, 2)
    t = 0.17
    pull_a = 1.4 * 2.718281828 ** (-(t - 0.15) / 0.045)
    pull_e = 1.0 * 2.718281828 ** (-(0.25 - t) / 0.045)
    expected = (pull_a * 0.85 * 1.05 + pull_e * 0.48 * 1.05) / (pull_a + pull_e)
    assert float(lip_movement([a, e], torch.tensor([t]))[0, JAW]) == pytest.approx(expected, rel=1e-5)


def test_neighbours_shape_one_another() -> None:
    t = torch.tensor([0.25])  # the middle of the third sound

    def lips(*names: str) -> torch.Tensor:
        return lip_movement(segments_of(_phones(*names), len(names) * 0.1), t)[0]

    # A k leaves the lips to its vowels, and an oo rounds them early.
    assert lips("uː", "uː", "k", "uː", "uː")[PUCKER] > 0.5 > 0.2 > lips("iː", "iː", "k", "iː", "iː")[PUCKER]
    assert lips("iː", "iː", "k", "iː", "iː")[STRETCH] > 0.3
    assert lips("k", "s", "s", "uː", "uː")[PUCKER] > 1.5 * lips("uː", "uː", "s", "s", "k")[PUCKER]
    # A p closes whatever surrounds it.
    for vowel in ("ɑː", "uː", "iː"):
        assert lips(vowel, vowel, "p", vowel, vowel)[PRESS] > 0.9


def test_manners_of_speaking() -> None:
    segments = segments_of(_phones("ɑː", "m", "ɑː", "uː", "s"), 0.5)
    t = torch.linspace(0, 0.5, 60)
    usual, mumbled = lip_movement(segments, t), lip_movement(segments, t, Articulation(opening=0.5))
    assert torch.allclose(mumbled[:, JAW], 0.5 * usual[:, JAW], atol=1e-5)
    quick = lip_movement(segments, t, Articulation(quickness=1.8))
    assert quick[:, JAW].diff().abs().max() > 1.1 * usual[:, JAW].diff().abs().max()
    with pytest.raises(ValueError, match="opening"):
        Articulation(opening=0.0)
    with pytest.raises(ValueError, match="segment"):
        lip_movement([], t)
