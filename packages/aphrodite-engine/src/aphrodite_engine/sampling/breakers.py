"""Texts at which repetition begins anew, as the tokens that can begin them.

A token that holds the whole text breaks alone. One that ends in the beginning of the text breaks
if the rest of the text follows: so it is found however its surroundings were cut into tokens.
Knows no tensors.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from aphrodite_engine.sampling.tokenizer import Tokenizer

LONGEST_TAIL: Final = 20
"""Tokens."""
_LONGEST_TEXT = 40  # characters that count
_BITS = 62
_ANYTHING = -3


class Breaker(msgspec.Struct, frozen=True, array_like=True):
    """Tokens that break if certain others follow."""

    heads: bytes
    """Ascending ids, int32 each."""
    tail: tuple[int, ...]
    """What must follow; mostly nothing."""


Breakers = tuple[Breaker, ...]


@lru_cache(maxsize=64)
def find_breakers(texts: Sequence[str], tokenizer: Tokenizer) -> Breakers:
    """All beginnings of texts; looks through the vocabulary once per text and beginning."""
    heads: dict[tuple[int, ...], set[int]] = {}
    for text in texts:
        _find(text[:_LONGEST_TEXT], tokenizer, heads)
    return tuple(Breaker(array("i", sorted(heads[tail])).tobytes(), tail) for tail in sorted(heads))


def _find(text: str, tokenizer: Tokenizer, heads: dict[tuple[int, ...], set[int]]) -> None:
    if not text:
        return
    whole = set(tokenizer.tokens_containing(text))
    heads.setdefault((), set()).update(whole)
    for cut in range(1, len(text)):
        partly = set(tokenizer.tokens_ending(text[:cut])) - whole
        if partly:
            tail = tuple(tokenizer.encode_inside(text[cut:])[:LONGEST_TAIL])
            heads.setdefault(tail, set()).update(partly)


def last_break(breakers: Breakers, tokens: Sequence[int]) -> tuple[int, int]:
    """Where the breaker that begins last begins and ends; of several tails the longest counts.

    (-1, 0) if there is none. Looks at the tokens from that breaker on.
    """
    tails = _tails(breakers)
    for begin in range(len(tokens) - 1 if tails else -1, -1, -1):
        for tail in tails.get(tokens[begin], ()):
            end = begin + 1 + len(tail)
            if tuple(tokens[begin + 1 : end]) == tail:
                return begin, end
    return -1, 0


@lru_cache(maxsize=64)
def _tails(breakers: Breakers) -> dict[int, list[tuple[int, ...]]]:
    """What may follow each head, longest first."""
    tails: dict[int, list[tuple[int, ...]]] = {}
    for each in sorted(breakers, key=lambda one: -len(one.tail)):
        for head in array("i", each.heads):
            tails.setdefault(head, []).append(each.tail)
    return tails


def breaker_tables(each: Sequence[Breakers]) -> dict[str, object]:
    """Arrays for a batch whose rows have these breakers: G tails, of which 0 is the empty one.

    `which` [n, 1]: a row's set, of S. `heads` [S, words, size] int64: the tails with which a token
    breaks, as bits; a token beyond is as the last, which has none. `word`, `bit` [G]: where those
    of a tail are. `tails` [S, G, M] with -3 beyond the end, `lengths` [S, G].
    """
    sets = {breakers: number for number, breakers in enumerate(dict.fromkeys(each))}
    most = max(len(_numbered(breakers)) for breakers in sets)
    words = -(-most // _BITS)
    longest = max((len(b.tail) for breakers in sets for b in breakers), default=0) or 1
    masks = [[_mask(breakers, word) for word in range(words)] for breakers in sets]
    size = max(len(mask) for several in masks for mask in several)
    flat = bytearray()
    for several in masks:
        for mask in several:
            flat += mask.tobytes() + bytes(8 * (size - len(mask)))
    tails = [[each.tail for each in _numbered(breakers)] for breakers in sets]
    for several in tails:
        several += [()] * (most - len(several))
    return {
        "which": [[sets[breakers]] for breakers in each],
        "heads": memoryview(flat).cast("q", [len(sets), words, size]),
        "word": [number // _BITS for number in range(most)],
        "bit": [number % _BITS for number in range(most)],
        "tails": [[[*t, *[_ANYTHING] * (longest - len(t))] for t in several] for several in tails],
        "lengths": [[len(t) for t in several] for several in tails],
    }


def _numbered(breakers: Breakers) -> Breakers:
    """The empty tail comes first, whether or not a token breaks alone."""
    alone = tuple(each for each in breakers if not each.tail) or (Breaker(b"", ()),)
    return (*alone, *(each for each in breakers if each.tail))


@lru_cache(maxsize=256)
def _mask(breakers: Breakers, word: int) -> "array[int]":
    """Bits of one word, by token; the last is 0."""
    part = _numbered(breakers)[word * _BITS : (word + 1) * _BITS]
    ids = [array("i", each.heads) for each in part]
    mask = array("q", bytes(8 * (2 + max((heads[-1] for heads in ids if heads), default=-1))))
    for bit, heads in enumerate(ids):
        for token in heads:
            mask[token] |= 1 << bit
    return mask
