"""The trained tokenizer: CLIP's layout, deterministic, nothing unrepresentable."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from experiments.training.tokenizer import train_tokenizer
from tests.diffusion.models import CAPTIONS

TOKENIZER = train_tokenizer(CAPTIONS, vocab_size=560)


def test_words_of_the_corpus_become_single_tokens_and_the_size_is_kept() -> None:
    assert len(TOKENIZER) <= 560  # a corpus this small runs out of words to merge
    assert len(train_tokenizer(CAPTIONS, vocab_size=530)) == 530
    assert TOKENIZER.tokenize("A red  MUSHROOM") == ["a</w>", "red</w>", "mushroom</w>"]
    ids = TOKENIZER("a red mushroom")["input_ids"]
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[-1] == TOKENIZER.eos_token_id == len(TOKENIZER) - 1
    assert TOKENIZER.model_max_length == 32
    assert train_tokenizer(CAPTIONS, vocab_size=560).get_vocab() == TOKENIZER.get_vocab()
    with pytest.raises(ValueError, match="vocab_size is 100, it must be at least 514"):
        train_tokenizer(CAPTIONS, vocab_size=100)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text(max_size=40))
def test_no_text_is_unrepresentable(text: str) -> None:
    """The end token stands for the unknown one, so a gap in the alphabet would cut prompts short."""
    special = {"<|startoftext|>", "<|endoftext|>"}
    if not any(token in text.lower() for token in special):
        assert TOKENIZER.eos_token_id not in TOKENIZER(text)["input_ids"][1:-1]


def test_saved_and_loaded_alike(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(str(tmp_path))
    again = CLIPTokenizer.from_pretrained(str(tmp_path))
    for text in (*CAPTIONS, "\U0001f600 unknown"):
        assert again(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert again.model_max_length == 32
