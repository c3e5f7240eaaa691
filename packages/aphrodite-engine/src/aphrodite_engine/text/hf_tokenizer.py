"""A tokenizer from a Hugging Face directory.

`tokenizer.json` says how to encode, its decoder how pieces spell bytes; `tokenizer_config.json` and
`special_tokens_map.json` name tokens with a role, `generation_config.json` those that end a
generation. Without `tokenizer.json` it is converted, which takes `transformers`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import tokenizers

from aphrodite_engine.errors import ModelError
from aphrodite_engine.text.tokenizer import SpecialTokens, Tokenizer
from aphrodite_engine.text.vocabulary import Spelling, Vocabulary, byte_level, sentencepiece

_ROLES: Final = ("bos_token", "eos_token", "unk_token", "pad_token")


def directory_tokenizer(directory: Path) -> Tokenizer:
    """Build the tokenizer of a Hugging Face directory.

    Raises:
        ModelError: files are missing or damaged, or the tokenizer decodes in an unknown way.
    """
    path = directory / "tokenizer.json"
    if path.is_file():
        encoder, description = _read_encoder(path)
    else:
        from aphrodite_engine.text.converted_tokenizer import converted_tokenizer

        encoder = converted_tokenizer(directory)
        description = json.loads(encoder.to_str())
    encoder.no_padding()
    encoder.no_truncation()
    vocabulary, leading_space = _vocabulary(encoder, description, path)
    return Tokenizer(encoder, vocabulary, _special(encoder, directory), leading_space=leading_space)


def _read_encoder(path: Path) -> tuple[tokenizers.Tokenizer, Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return tokenizers.Tokenizer.from_str(text), json.loads(text)
    except Exception as error:  # the library raises bare Exception on a bad file
        raise ModelError(
            f"{path} is no tokenizer of the `tokenizers` library: {error}; get the file again"
        ) from error


def _vocabulary(
    encoder: tokenizers.Tokenizer, description: Mapping[str, Any], path: Path
) -> tuple[Vocabulary, bool]:
    """All tokens, and whether a whole text loses a leading space when decoded."""
    decoder = _steps(description.get("decoder"))
    spelling = _spelling(decoder)
    if spelling is None:
        kinds = ", ".join(step["type"] for step in decoder) or "none"
        raise ModelError(
            f"{path} decodes in a way this engine does not know ({kinds}); "
            "known: ByteLevel, Metaspace, ByteFallback"
        )
    ids = encoder.get_vocab(with_added_tokens=True)
    pieces = [""] * (max(ids.values(), default=-1) + 1)
    for piece, token in ids.items():
        pieces[token] = piece
    added = encoder.get_added_tokens_decoder()
    special = frozenset(token for token, entry in added.items() if entry.special)
    verbatim = frozenset(added) if spelling is byte_level else special
    return Vocabulary(pieces, spelling, special, verbatim), _drops_space(decoder)


def _steps(entry: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The elementary decoders of a decoder."""
    if entry is None:
        return []
    if entry["type"] != "Sequence":
        return [entry]
    return [step for inner in entry["decoders"] for step in _steps(inner)]


def _spelling(decoder: list[Mapping[str, Any]]) -> Spelling | None:
    kinds = {step["type"] for step in decoder}
    if "ByteLevel" in kinds:
        return byte_level
    return sentencepiece if kinds & {"Metaspace", "ByteFallback"} else None


def _drops_space(decoder: list[Mapping[str, Any]]) -> bool:
    for step in decoder:
        if step["type"] == "Strip" and step.get("start", 0) > 0:
            return True
        if step["type"] == "Metaspace":
            return step.get("prepend_scheme", "always") != "never"
    return False


def _special(encoder: tokenizers.Tokenizer, directory: Path) -> SpecialTokens:
    config = {
        **_read_json(directory / "special_tokens_map.json"),
        **_read_json(directory / "tokenizer_config.json"),
    }
    roles = {role: _token(encoder, config.get(role)) for role in _ROLES}
    known = [end for end in [roles["eos_token"], *_ends(directory)] if end is not None]
    before, after = _surroundings(encoder)
    return SpecialTokens(
        bos=roles["bos_token"],
        eos=roles["eos_token"],
        unknown=roles["unk_token"],
        padding=roles["pad_token"],
        ends=frozenset(known),
        before=before,
        after=after,
    )


def _ends(directory: Path) -> list[int]:
    """Tokens that end a text, as generation_config.json has them: none, one or several."""
    path = directory / "generation_config.json"
    declared = _read_json(path).get("eos_token_id")
    if declared is None:
        return []
    ends = cast("list[object]", declared if isinstance(declared, list) else [declared])
    known = [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]
    if len(known) < len(ends):
        raise ModelError(
            f"{path}: eos_token_id should be an id or a list of ids, but holds {declared!r}; "
            "correct it, or get the file again"
        )
    return known


def _token(encoder: tokenizers.Tokenizer, entry: object) -> int | None:
    """Id of a token named by its text or by its description."""
    if isinstance(entry, dict):
        entry = cast("dict[str, Any]", entry).get("content")
    return encoder.token_to_id(entry) if isinstance(entry, str) else None


def _surroundings(encoder: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the file puts before and after a text."""
    probe = encoder.encode("a", add_special_tokens=True)
    text = [place for place, special in enumerate(probe.special_tokens_mask) if not special]
    if not text:
        return tuple(probe.ids), ()
    return tuple(probe.ids[: text[0]]), tuple(probe.ids[text[-1] + 1 :])


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is no valid JSON: {error}; get the file again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} should hold a JSON object; get the file again")
    return cast("dict[str, Any]", value)
