"""Text to tokens and back.

A `Tokenizer` is made whole by one of its builders: gguf_tokenizer.py from the metadata of a GGUF
file, hf_tokenizer.py from a Hugging Face directory. Encoding is the `tokenizers` library's;
decoding is ours: a token is a string of bytes, a text is the bytes of its tokens read as UTF-8, so
that a text decoded piecewise equals the text decoded whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import tokenizers

from aphrodite_engine.errors import RequestError
from aphrodite_engine.text.token_search import TokenSearch
from aphrodite_engine.text.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Tokens with a role."""

    bos: int | None = None
    """Begin of text."""
    eos: int | None = None
    """End of text."""
    unknown: int | None = None
    padding: int | None = None
    ends: frozenset[int] = frozenset()
    """All that end a generation: end of text, of turn, of message."""
    before: tuple[int, ...] = ()
    """What `add_special` puts before a text (begin of text, if the model wants it)."""
    after: tuple[int, ...] = ()
    """What `add_special` puts after it."""


class Tokenizer:
    """Text to tokens and back; safe to share between threads."""

    def __init__(
        self,
        encoder: tokenizers.Tokenizer,
        vocabulary: Vocabulary,
        special: SpecialTokens,
        *,
        leading_space: bool = False,
    ) -> None:
        encoder.encode_special_tokens = False
        self._encoder = encoder
        self.vocabulary = vocabulary
        self.special = special
        self.leading_space = leading_space
        """Encoding puts a space before a text, so decoding a whole text drops one."""

    def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> list[int]:
        """Tokens of a text.

        Args:
            text: any text.
            add_special: put begin-of-text before it, if the model wants one.
            parse_special: read the names of control tokens as these tokens, not as plain text.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                f"the text is not valid Unicode: lone surrogate at character {error.start}; "
                "send text that can be written as UTF-8"
            ) from None
        encoder = self._encoder if parse_special else self._literal_encoder
        # Unlike `encode`, this lets other threads run meanwhile.
        [encoding] = encoder.encode_batch_fast([text], add_special_tokens=False)
        tokens = encoding.ids
        return [*self.special.before, *tokens, *self.special.after] if add_special else tokens

    def encode_inside(self, text: str) -> list[int]:
        """Tokens of a text that others precede: no begin-of-text, no space before it."""
        wanted = text.encode()
        for before in ("", "\n", "a"):
            tokens = self.encode(before + text, add_special=False, parse_special=False)
            for start in range(len(tokens)):
                if b"".join(map(self.token_bytes, tokens[start:])) == wanted:
                    return tokens[start:]
        return self.encode(text, add_special=False, parse_special=False)

    def tokens_containing(self, text: str) -> list[int]:
        """Tokens that hold a text, which is not empty; ascending."""
        return self._search.containing(text.encode())

    def tokens_ending(self, text: str) -> list[int]:
        """Tokens that end in a text; ascending."""
        return self._search.ending(text.encode())

    def encoder_json(self) -> str:
        """What encodes, as the `tokenizers` library writes it; it may lack a decoder."""
        return self._encoder.to_str()

    @cached_property
    def _search(self) -> TokenSearch:
        return TokenSearch([self.token_bytes(token) for token in range(self.vocab_size)])

    @cached_property
    def _literal_encoder(self) -> tokenizers.Tokenizer:
        """Reads control tokens as plain text. A copy: the switch is state of an encoder."""
        copy = tokenizers.Tokenizer.from_str(self._encoder.to_str())
        copy.encode_special_tokens = True
        return copy

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest token: a text has at least its bytes / this many tokens."""
        return max(len(self.token_bytes(token)) for token in range(self.vocab_size))

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of tokens; bytes that are no UTF-8 read as U+FFFD.

        Raises:
            RequestError: see `check`.
        """
        self.check(tokens)
        return self._join(tokens, skip_special=skip_special).decode(errors="replace")

    def check(self, tokens: Sequence[int]) -> None:
        """RequestError: an id that is no token."""
        for token in (min(tokens), max(tokens)) if tokens else ():
            if not 0 <= token < len(self.vocabulary):
                raise RequestError(
                    f"token id {token} is outside the vocabulary; "
                    f"send ids from 0 to {len(self.vocabulary) - 1}"
                )

    def _join(self, tokens: Iterable[int], *, skip_special: bool) -> bytes:
        hidden = self.vocabulary.special if skip_special else frozenset[int]()
        parts = [self.vocabulary.bytes_of(token) for token in tokens if token not in hidden]
        text = b"".join(parts)
        return text.removeprefix(b" ") if self.leading_space else text

    def token_bytes(self, token: int) -> bytes:
        """Bytes a token stands for, a control token's name included."""
        return self.vocabulary.bytes_of(token)

    def token_text(self, token: int) -> str:
        """The same as text; a part of a character reads as U+FFFD."""
        return self.vocabulary.bytes_of(token).decode(errors="replace")

    def token_id(self, piece: str) -> int | None:
        """The token that the checkpoint spells so."""
        return self.vocabulary.ids.get(piece)

    @property
    def vocab_size(self) -> int:
        """Tokens the tokenizer knows; the model's output may be padded beyond."""
        return len(self.vocabulary)

    @property
    def bos_id(self) -> int | None:
        return self.special.bos

    @property
    def eos_id(self) -> int | None:
        return self.special.eos

    @property
    def end_ids(self) -> frozenset[int]:
        """All tokens that end a generation."""
        return self.special.ends

    @property
    def line_breaks(self) -> frozenset[int]:
        """Tokens that are line breaks, one or several, and nothing else."""
        return self._line_breaks

    @cached_property
    def _line_breaks(self) -> frozenset[int]:
        pieces = ((token, self.token_bytes(token)) for token in range(self.vocab_size))
        return frozenset(token for token, piece in pieces if piece and not piece.strip(b"\r\n"))

    @property
    def special_ids(self) -> frozenset[int]:
        """Control tokens: hidden by `skip_special_tokens`."""
        return self.vocabulary.special

    @property
    def add_bos(self) -> bool:
        """`add_special` puts begin-of-text before a text."""
        return self.special.bos is not None and self.special.bos in self.special.before
