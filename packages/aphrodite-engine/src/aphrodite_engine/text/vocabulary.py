"""What each token is: its piece as the checkpoint spells it, and the bytes it stands for.

Every tokenizer here spells bytes in one of two ways. `byte_level` (GPT-2 and its heirs) writes each
byte as one printable character. `sentencepiece` writes plain text, with U+2581 for a space and
`<0xNN>` for a lone byte. Control and user-defined tokens are written as they read.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

Spelling = Callable[[str], bytes]
SPACE: Final = "\u2581"
"""SentencePiece's visible space."""
BYTE_SPACE: Final = "\u0120"
"""That of byte-level vocabularies."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> Mapping[str, int]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = (byte for byte in range(256) if byte not in printable)
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + place): byte for place, byte in enumerate(moved)})
    return MappingProxyType(alphabet)


BYTE_ALPHABET: Final = _byte_alphabet()
"""Printable character → the byte it stands for, in byte-level vocabularies."""


def byte_level(piece: str) -> bytes:
    """Bytes of a byte-level piece; characters outside its alphabet stand for themselves."""
    try:
        return bytes([BYTE_ALPHABET[character] for character in piece])
    except KeyError:
        return b"".join(
            bytes([BYTE_ALPHABET[c]]) if c in BYTE_ALPHABET else c.encode() for c in piece
        )


def sentencepiece(piece: str) -> bytes:
    """Bytes of a SentencePiece piece."""
    byte = _BYTE_TOKEN.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()


@dataclass(frozen=True)
class Vocabulary:
    """Pieces and kinds of all tokens."""

    pieces: list[str]
    """By token id."""
    spelling: Spelling
    special: frozenset[int]
    """Control tokens: no text of their own, hidden unless asked for."""
    verbatim: frozenset[int]
    """Tokens whose piece is their text; the special ones among them."""

    def __len__(self) -> int:
        return len(self.pieces)

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; nothing for the ids with which models pad their output."""
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = self._spell(token)
        return known

    def _spell(self, token: int) -> bytes:
        if not 0 <= token < len(self.pieces):
            return b""
        piece = self.pieces[token]
        return piece.encode() if token in self.verbatim else self.spelling(piece)

    @cached_property
    def _known(self) -> dict[int, bytes]:
        """What was spelled before: at most one entry for each token."""
        return {}

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Piece → token id."""
        return {piece: token for token, piece in enumerate(self.pieces)}
