"""Tokens to text, one at a time: only text that later tokens cannot change.

It holds back the bytes of an unfinished character and knows nothing of stop strings or requests.
The texts it gives, joined, are the text of the whole; each token costs the length of its own text.
"""

import codecs
from collections.abc import Sequence

from aphrodite_engine.text.tokenizer import Tokenizer

_LONGEST_CHARACTER = 4


class Detokenizer:
    """The text that continues a prompt."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int] = (),
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = False,
    ) -> None:
        self._vocabulary = tokenizer.vocabulary
        self._hidden = tokenizer.special_ids if skip_special_tokens else frozenset[int]()
        self._spaces = spaces_between_special_tokens
        self._after_special = False
        silent = all(token in self._hidden for token in prompt)
        self._drop_space = tokenizer.leading_space and silent
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._decoder.decode(self._unfinished(prompt))

    def _unfinished(self, prompt: Sequence[int]) -> bytes:
        """The bytes with which a prompt breaks off inside a character."""
        tail = b""
        for token in reversed(prompt):
            if len(tail) >= _LONGEST_CHARACTER or token in self._vocabulary.special:
                break
            tail = self._vocabulary.bytes_of(token) + tail
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        decoder.decode(tail)
        return decoder.getstate()[0]

    def feed(self, token: int) -> str:
        """Text that became certain with this token."""
        return self._decoder.decode(self._bytes(token))

    def _bytes(self, token: int) -> bytes:
        if token in self._hidden:
            return b""
        text = self._vocabulary.bytes_of(token)
        special = token in self._vocabulary.special
        if special and self._after_special and self._spaces:
            text = b" " + text
        if self._drop_space and text:
            self._drop_space = False
            text = text.removeprefix(b" ")
        self._after_special = special
        return text

    @property
    def unfinished(self) -> bool:
        """Bytes of an unfinished character are held back."""
        return bool(self._decoder.getstate()[0])

    @property
    def state(self) -> tuple[tuple[bytes, int], bool, bool]:
        """Where it stands: to be set again, if later tokens are taken back."""
        return self._decoder.getstate(), self._drop_space, self._after_special

    @state.setter
    def state(self, state: tuple[tuple[bytes, int], bool, bool]) -> None:
        decoded, self._drop_space, self._after_special = state
        self._decoder.setstate(decoded)

    def flush(self) -> str:
        """The rest: U+FFFD if the last character is unfinished."""
        return self._decoder.decode(b"", final=True)
