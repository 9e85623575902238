"""Training a small CLIP tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import pre_tokenizers
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
    merges = _learn_merges(_count_words(texts), num_merges)
    tokens = base + ["".join(merge) for merge in merges]
    tokens = list(dict.fromkeys(tokens)) + list(_SPECIAL)
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)  # pyright: ignore


def _count_words(texts: Iterable[str]) -> Counter[tuple[str, ...]]:
    """How often each word occurs, as the byte letters that CLIPTokenizer's own normaliser and splitter make of it."""
    blank = CLIPTokenizer().backend_tokenizer
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        normal = blank.normalizer.normalize_str(text)
        for word, _ in blank.pre_tokenizer.pre_tokenize_str(normal):
            counts[(*word[:-1], f"{word[-1]}</w>")] += 1
    return counts


def _learn_merges(words: Counter[tuple[str, ...]], num_merges: int) -> list[tuple[str, str]]:
    """Byte-pair encoding (arXiv 1508.07909): join the most frequent pair, again and again.

    Our own loop, because the one of `tokenizers` breaks ties by the order of a hash table, differently every time.
    Here the pair that comes first in the alphabet wins.
    """
    merges: list[tuple[str, str]] = []
    for _ in range(num_merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        joined: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            joined[_join(word, best)] += count
        words = joined
    return merges


def _join(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`word` with every occurrence of `pair`, from the left, made one symbol."""
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)
