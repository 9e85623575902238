"""Things to say: English sentences from a small grammar, and a list that is rich in sounds.

Every tenth sentence or so is held out: training never hears it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

# Written for this purpose: every English sound in many neighbourhoods, the lips' sounds above all.
RICH = (
    "Quick zebras jump over a vexed fox with mild bragging.",
    "Bob popped a big purple bubble before supper.",
    "My mum made plum jam on Monday morning.",
    "Pam may pay Bob for a map of Bombay.",
    "Five brave foxes leave the village every evening.",
    "Thin threads of feather float over the other side of the path.",
    "She sells fresh fish at the shop by the shore.",
    "The judge chose a huge orange cheese.",
    "Could you move the blue shoes to the cool room?",
    "We saw four small boats come home through the fog.",
    "Oil boils and voices rise above the noise.",
    "How now, the brown cow bows out of the house.",
    "Here the air is rare and the fire is near.",
    "I like my pie warm with a pinch of pepper.",
    "Peter bought a better butter bowl from Barbara.",
    "Look, the good cook took a book from the hook.",
    "Father parked the large car far from the market.",
    "Three thousand bathers breathe with their mouths open.",
    "The young king is singing a long song.",
    "Please leave these green leaves beneath the trees.",
    "Jack's fat black cat sat back and napped.",
    "Get ten red pens and send them to Ben.",
    "A vivid vision of a measured leisure gives pleasure.",
    "Why would a white whale want wool in winter?",
    "Her first nurse heard a bird on the third of March.",
    "Up above, a dove loves the sun.",
    "Maybe Emma can bring a mop and a bucket.",
    "Oh no, the old boat won't float alone.",
    "Yes, you used your yellow yacht last year.",
    "Hello, my name is Galatea, and I was made from words.",
)

_WHO = (
    "the baker", "my brother", "our teacher", "a young painter", "the old sailor", "Barbara",
    "a brave farmer", "my aunt", "the mayor", "Oliver", "the little girl", "a famous poet", "the pilot",
    "your neighbour", "Maria", "the doctor", "a quiet boy", "the piper", "everybody",
    "the woman from Bombay",
)  # fmt: skip
_DID = (
    "bought", "painted", "lost", "found", "carried", "hid", "showed me", "dreamed of", "repaired",
    "wrapped", "asked for", "threw away", "polished", "measured", "sold", "borrowed", "washed", "opened",
    "forgot", "brought home",
)  # fmt: skip
_HOW = (
    "an old", "a tiny", "the green", "a beautiful", "a broken", "the heavy", "a golden", "a wooden",
    "an empty", "a purple", "my favourite", "the other", "a smooth", "an enormous", "a warm", "the famous",
    "a cheap", "a strange", "a fresh", "the yellow",
)  # fmt: skip
_WHAT = (
    "boat", "umbrella", "apple", "window", "map", "violin", "shovel", "teapot", "book", "feather", "hammer",
    "candle", "bicycle", "pumpkin", "mirror", "jar of honey", "bag of peppers", "garage door",
    "pair of shoes", "loaf of bread",
)  # fmt: skip
_WHERE = (
    "in the park", "by the river", "at home", "near the harbour", "on the roof", "behind the house",
    "in the village", "under the bridge", "at the market", "on a boat", "in the middle of town",
    "above the shop", "", "", "",
)  # fmt: skip
_WHEN = (
    "yesterday", "this morning", "before supper", "last May", "on Monday", "after the show",
    "in the evening", "again", "once more", "for the first time", "every week", "at half past five", "", "",
    "",
)  # fmt: skip
_OPENING = (
    "", "", "", "Well,", "You know,", "Perhaps", "I hear that", "Believe me,", "Somebody told me that",
    "Of course", "In fact,", "They say that",
)  # fmt: skip
_CLOSING = (
    "", "", "", "but nobody saw it", "and everyone laughed", "because it was so cheap",
    "and we were very happy", "though I would rather have waited", "which was a big surprise",
    "so please be careful", "and then it began to rain",
)  # fmt: skip


def held_out_sentence(text: str) -> bool:
    """True for the tenth of all sentences that training never hears."""
    return hashlib.sha256(f"sentence {text}".encode()).digest()[0] % 10 == 0


def sample_sentence(*, held_out: bool, generator: torch.Generator) -> str:
    """A sentence of one to about six seconds, held out or not."""
    while True:
        rich = float(torch.rand((), generator=generator)) < 0.12
        text = _pick(RICH, generator) if rich else _compose(generator)
        if held_out_sentence(text) == held_out:
            return text


def _pick(words: Sequence[str], generator: torch.Generator) -> str:
    return words[int(torch.randint(len(words), (), generator=generator))]


def _compose(generator: torch.Generator) -> str:
    opening, who, did, how, what, where, when, closing = (
        _pick(words, generator) for words in (_OPENING, _WHO, _DID, _HOW, _WHAT, _WHERE, _WHEN, _CLOSING)
    )
    main = " ".join(filter(None, (opening, who, did, how, what, where, when)))
    text = f"{main}, {closing}." if closing else f"{main}."
    return text[0].upper() + text[1:]
