from __future__ import annotations

import torch

from experiments.world.sentences import RICH, held_out_sentence, sample_sentence


def test_held_out_sentences_stay_out() -> None:
    generator = torch.Generator().manual_seed(0)
    trained = [sample_sentence(held_out=False, generator=generator) for _ in range(400)]
    kept = [sample_sentence(held_out=True, generator=generator) for _ in range(100)]
    assert not any(map(held_out_sentence, trained))
    assert all(map(held_out_sentence, kept))
    assert not set(trained) & set(kept)
    assert len(set(trained)) > 330
    share = sum(held_out_sentence(f"sentence number {i}") for i in range(2000)) / 2000
    assert 0.07 < share < 0.13


def test_sentences_are_sentences() -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        text = sample_sentence(held_out=False, generator=generator)
        assert text[0].isupper()
        assert text[-1] in ".?"
        assert "  " not in text
        assert " ," not in text
        assert text.isascii()
    assert set("abcdefghijklmnopqrstuvwxyz") <= set("".join(RICH).lower())
    again = torch.Generator().manual_seed(1)
    assert sample_sentence(held_out=False, generator=again) == sample_sentence(
        held_out=False, generator=torch.Generator().manual_seed(1)
    )
