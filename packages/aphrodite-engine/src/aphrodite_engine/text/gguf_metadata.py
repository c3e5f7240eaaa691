"""A tokenizer as the `tokenizer.*` metadata of a GGUF file.

Whatever is written is read again and tried: a tokenizer that a file cannot say is refused.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, cast

import tokenizers
from aphrodite_quant import MetadataValue

from aphrodite_engine.errors import ModelError
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_engine.text.gguf_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from aphrodite_engine.text.pre_tokenizer import RULES, pre_tokenizer
from aphrodite_engine.text.tokenizer import Tokenizer
from aphrodite_engine.text.vocabulary import byte_level

_PROBE: Final = (
    "Hello, world! It's 3.14159 or 1234567; I'LL say\n\n  so.\t\tdef f(x):\n    return x**2 // 3"
    "\r\n ÀÉÎ straße naïve ΑΒΓ где? 你好。世界 こんにちは 한국어 😀 ... --- 'tis"
    " http://a.b/c?d=e&f=1 CamelCase"
)
_NEVER: Final = -1e9


def tokenizer_metadata(
    tokenizer: Tokenizer, template: str | None, size: int
) -> dict[str, MetadataValue]:
    """All `tokenizer.*`, for an embedding of `size` rows.

    Raises:
        ModelError: a file cannot say how this tokenizer works.
    """
    description = json.loads(tokenizer.encoder_json())
    model = description["model"]
    if model["type"] != "BPE":
        raise ModelError(f"a tokenizer of type {model['type']} cannot be written as GGUF; only BPE")
    pieces = [*tokenizer.vocabulary.pieces, *[""] * (size - len(tokenizer.vocabulary.pieces))]
    kinds = _kinds(tokenizer, description, pieces)
    tokens = [piece or f"[PAD{number}]" for number, piece in enumerate(pieces)]
    merges = [
        tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
        for merge in model["merges"]
    ]
    found: dict[str, MetadataValue] = {"tokens": tokens, "token_type": kinds}
    if tokenizer.vocabulary.spelling is byte_level:
        found = {"model": "gpt2", "pre": _rule(description), **found}
        found["merges"] = [" ".join(merge) for merge in merges]
    else:
        found = {"model": "llama", **found, "scores": _scores(tokens, merges)}
        found["add_space_prefix"] = tokenizer.leading_space
    found |= _roles(tokenizer)
    metadata = {f"tokenizer.ggml.{key}": value for key, value in found.items()}
    if template is not None:
        metadata["tokenizer.chat_template"] = template
    _check(tokenizer, metadata)
    return metadata


def _kinds(tokenizer: Tokenizer, description: Mapping[str, Any], pieces: list[str]) -> list[int]:
    kinds = [NORMAL if piece else UNUSED for piece in pieces]
    if tokenizer.vocabulary.spelling is not byte_level:
        for token, piece in enumerate(pieces):
            if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
                kinds[token] = BYTE
    for entry in description["added_tokens"]:
        kinds[entry["id"]] = CONTROL if entry["special"] else USER_DEFINED
    if tokenizer.special.unknown is not None:
        kinds[tokenizer.special.unknown] = UNKNOWN
    return kinds


def _rule(description: Mapping[str, Any]) -> str:
    """The name of the rule that cuts words as this tokenizer does."""
    steps = tokenizers.Tokenizer.from_str(json.dumps(description)).pre_tokenizer
    cut = [] if steps is None else cast("list[Any]", steps.pre_tokenize_str(_PROBE))
    whole_words = bool(description["model"].get("ignore_merges"))
    for name, rule in RULES.items():
        if rule.whole_words == whole_words and pre_tokenizer(rule).pre_tokenize_str(_PROBE) == cut:
            return name
    raise ModelError(
        "the tokenizer cuts words in a way that GGUF has no name for; known are "
        f"{', '.join(sorted(RULES))}"
    )


def _scores(tokens: list[str], merges: list[tuple[str, ...]]) -> list[float]:
    """Of each token the negated rank of the first merge that makes it."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge), rank)
    return [float(-ranks[token]) if token in ranks else _NEVER for token in tokens]


def _roles(tokenizer: Tokenizer) -> dict[str, MetadataValue]:
    special = tokenizer.special
    roles = {
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "unknown_token_id": special.unknown,
        "padding_token_id": special.padding,
    }
    others = sorted(special.ends - {special.eos})
    roles |= dict(zip(("eot_token_id", "eom_token_id"), others, strict=False))
    found: dict[str, MetadataValue] = {
        key: token for key, token in roles.items() if token is not None
    }
    found["add_bos_token"] = bool(special.before)
    found["add_eos_token"] = bool(special.after)
    return found


def _check(tokenizer: Tokenizer, metadata: Mapping[str, MetadataValue]) -> None:
    again = gguf_tokenizer(metadata)
    for text in (_PROBE, *_PROBE.split(" ")):
        wanted = tokenizer.encode(text, add_special=True, parse_special=True)
        found = again.encode(text, add_special=True, parse_special=True)
        if found != wanted:
            raise ModelError(
                f"the tokenizer cannot be said in GGUF: {text!r:.60} would be {found[:12]}, "
                f"not {wanted[:12]}"
            )
    if not again.special.ends >= tokenizer.special.ends:
        missing = sorted(tokenizer.special.ends - again.special.ends)
        raise ModelError(f"GGUF cannot say that the tokens {missing} end a generation as well")
