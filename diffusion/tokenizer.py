"""Training a small CLIP tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import CLIPTokenizer

_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 2048, max_length: int = 32) -> CLIPTokenizer:
    """Byte-level BPE in CLIP's layout: lower case, `</w>` ends a word, every text is representable.

    Args:
        texts: the corpus; the result depends on nothing else.
        vocab_size: most entries; 514 of them are the bytes (with and without `</w>`) and two special tokens.
        max_length: tokens per prompt, the two special ones included.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = alphabet + [f"{letter}</w>" for letter in alphabet]
    num_merges = vocab_size - len(base) - len(_SPECIAL)
    if num_merges < 0:
        raise ValueError(f"vocab_size is {vocab_size}, it must be at least {len(base) + len(_SPECIAL)}")
    # CLIPTokenizer's own normaliser and splitter, so that training sees the words that encoding will see.
    blank = CLIPTokenizer().backend_tokenizer
    trainee = Tokenizer(BPE(end_of_word_suffix="</w>"))
    trainee.normalizer, trainee.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trainee.train_from_iterator(texts, trainer)
    merges = [tuple(merge) for merge in _merges(trainee)][:num_merges]
    tokens = base + ["".join(merge) for merge in merges]
    tokens = list(dict.fromkeys(tokens)) + list(_SPECIAL)
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)  # pyright: ignore


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    return json.loads(tokenizer.to_str())["model"]["merges"]
