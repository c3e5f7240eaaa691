"""The vocabulary of a GGUF file: its `tokenizer.*` metadata, read and checked once.

It knows the keys, their types and their defaults, and nothing of how texts are encoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar, cast

from aphrodite_engine.errors import ModelError

NORMAL: Final = 1
UNKNOWN: Final = 2
CONTROL: Final = 3
USER_DEFINED: Final = 4
UNUSED: Final = 5
BYTE: Final = 6

_PREFIX = "tokenizer.ggml."
# Files rarely name the token that ends a turn, so these end a generation wherever they are control
# tokens.
_END_NAMES: Final = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",  # noqa: RUF001 - spelt so by its model
)
# Where both of these exist, <|end|> only parts the messages of one turn.
_HARMONY_ENDS: Final = frozenset(("<|return|>", "<|call|>"))
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class GgufVocabulary:
    """`tokenizer.*` of one file. Optional values are None where the file is silent."""

    model: str
    pre: str | None
    tokens: list[str]
    kinds: list[int]
    """NORMAL … BYTE, by token."""
    scores: list[float] | None
    merges: list[str] | None
    bos: int | None
    eos: int | None
    eot: int | None
    eom: int | None
    unknown: int | None
    padding: int | None
    add_bos: bool | None
    add_eos: bool | None
    add_space_prefix: bool | None
    remove_extra_whitespaces: bool | None
    charsmap: bytes | None
    """SentencePiece's compiled normaliser."""

    @classmethod
    def read(cls, metadata: Mapping[str, Any]) -> "GgufVocabulary":
        """From all metadata of a file. ModelError names the key that is missing or wrong."""
        keys = _Keys(metadata)
        tokens = keys.strings("tokens")
        if tokens is None:
            raise ModelError(
                f"the file has no {_PREFIX}tokens, so no vocabulary; "
                "convert the model again, with its tokenizer"
            )
        size = len(tokens)
        kinds = keys.numbers("token_type", int, size)
        return cls(
            model=keys.required("model", str),
            pre=keys.optional("pre", str),
            tokens=tokens,
            kinds=[NORMAL] * size if kinds is None else kinds,
            scores=keys.numbers("scores", float, size),
            merges=keys.strings("merges"),
            bos=keys.token("bos_token_id", size),
            eos=keys.token("eos_token_id", size),
            eot=keys.token("eot_token_id", size),
            eom=keys.token("eom_token_id", size),
            unknown=keys.token("unknown_token_id", size),
            padding=keys.token("padding_token_id", size),
            add_bos=keys.optional("add_bos_token", bool),
            add_eos=keys.optional("add_eos_token", bool),
            add_space_prefix=keys.optional("add_space_prefix", bool),
            remove_extra_whitespaces=keys.optional("remove_extra_whitespaces", bool),
            charsmap=keys.octets("precompiled_charsmap"),
        )

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token → id. ModelError if two tokens are spelt alike."""
        ids = {token: index for index, token in enumerate(self.tokens)}
        if len(ids) != len(self.tokens):
            twin = next(t for i, t in enumerate(self.tokens) if ids[t] != i)
            raise ModelError(f"{_PREFIX}tokens holds '{twin}' twice; convert the model again")
        return ids

    def of_kind(self, *kinds: int) -> list[int]:
        """Tokens of these kinds, in order."""
        return [token for token, kind in enumerate(self.kinds) if kind in kinds]

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a generation."""
        known = self._ends_by_name()
        declared = (token for token in (self.eos, self.eot, self.eom) if token is not None)
        return frozenset([*known, *declared])

    def _ends_by_name(self) -> list[int]:
        names = set(_END_NAMES)
        if self.ids.keys() >= _HARMONY_ENDS:
            names.discard("<|end|>")
        found = (self.ids[name] for name in names if name in self.ids)
        return [token for token in found if self.kinds[token] == CONTROL]


class _Keys:
    """Typed look-ups in metadata that others wrote."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata

    def optional(self, key: str, kind: type[_Value]) -> _Value | None:
        value = self._metadata.get(_PREFIX + key)
        if value is None or isinstance(value, kind):
            return value
        raise _wrong(key, kind.__name__, value)

    def required(self, key: str, kind: type[_Value]) -> _Value:
        value = self.optional(key, kind)
        if value is None:
            raise ModelError(
                f"the file has no {_PREFIX}{key}, so its tokenizer is unknown; "
                "convert the model again, with its tokenizer"
            )
        return value

    def token(self, key: str, size: int) -> int | None:
        value = self._metadata.get(_PREFIX + key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(key, "a token id", value)
        if not 0 <= value < size:
            raise ModelError(f"{_PREFIX}{key} is {value}, but the vocabulary has {size} tokens")
        return value

    def strings(self, key: str) -> list[str] | None:
        values = self._sequence(key, "an array of strings")
        if values is not None and not all(isinstance(value, str) for value in values):
            odd = next(value for value in values if not isinstance(value, str))
            raise _wrong(key, "an array of strings", odd)
        return values

    def numbers(self, key: str, kind: type[_Value], size: int) -> list[_Value] | None:
        values = self._sequence(key, f"an array of {kind.__name__}")
        if values is None:
            return None
        if len(values) != size:
            raise ModelError(
                f"{_PREFIX}{key} has {len(values)} entries for {size} tokens; "
                "the file is damaged, get it again"
            )
        accepted = (int, float) if kind is float else (kind,)
        odd = next((value for value in values if not isinstance(value, accepted)), None)
        if odd is not None:
            raise _wrong(key, f"an array of {kind.__name__}", odd)
        return values

    def octets(self, key: str) -> bytes | None:
        values = self._sequence(key, "an array of bytes")
        return None if values is None else bytes(value & 0xFF for value in values)

    def _sequence(self, key: str, wanted: str) -> list[Any] | None:
        value = self._metadata.get(_PREFIX + key)
        if value is None:
            return None
        if hasattr(value, "tolist"):  # a numpy array
            value = value.tolist()
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise _wrong(key, wanted, value)
        return list(cast("Sequence[Any]", value))


def _wrong(key: str, wanted: str, value: object) -> ModelError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return ModelError(
        f"{_PREFIX}{key} should be {wanted}, but holds {shown}; the file is damaged or was not "
        "written by a GGUF converter"
    )
