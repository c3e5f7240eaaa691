"""A tokenizer from the metadata of a GGUF file, and nothing else.

`tokenizer.ggml.model` names the family: `gpt2` (byte-level BPE), `llama` (SentencePiece BPE, merged
by scores), `gemma4` (BPE over plain characters) and `t5` (Unigram).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from aphrodite_engine.errors import ModelError
from aphrodite_engine.text.gguf_vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    GgufVocabulary,
)
from aphrodite_engine.text.pre_tokenizer import pre_tokenizer, rule_named
from aphrodite_engine.text.tokenizer import SpecialTokens, Tokenizer
from aphrodite_engine.text.vocabulary import (
    BYTE_SPACE,
    SPACE,
    Spelling,
    Vocabulary,
    byte_level,
    sentencepiece,
)


def gguf_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer that a GGUF file describes.

    Args:
        metadata: all metadata of the file, arrays as sequences or numpy arrays.

    Raises:
        ModelError: the metadata are incomplete, contradict themselves or name an unknown family.
    """
    vocabulary = GgufVocabulary.read(metadata)
    if vocabulary.model not in _FAMILIES:
        raise ModelError(
            f"tokenizer.ggml.model is '{vocabulary.model}', a family this engine does not have; "
            f"known: {', '.join(sorted(_FAMILIES))}"
        )
    return _FAMILIES[vocabulary.model](vocabulary)


def _byte_level_bpe(vocabulary: GgufVocabulary) -> Tokenizer:
    if vocabulary.pre is None:
        raise ModelError(
            "the file has no tokenizer.ggml.pre, so the way its vocabulary cuts words is unknown; "
            "convert the model again with a current converter"
        )
    rule = rule_named(vocabulary.pre)
    model = models.BPE(
        vocab=vocabulary.ids, merges=_merges(vocabulary), ignore_merges=rule.whole_words
    )
    encoder = tokenizers.Tokenizer(model)
    encoder.pre_tokenizer = pre_tokenizer(rule)
    return _assemble(vocabulary, encoder, byte_level, add_bos=rule.add_bos)


def _sentencepiece_bpe(vocabulary: GgufVocabulary) -> Tokenizer:
    if vocabulary.scores is None:
        raise _missing("scores", vocabulary)
    _check_spaces(vocabulary)
    model = models.BPE(
        vocab=vocabulary.ids,
        merges=_merges_by_score(vocabulary, vocabulary.scores),
        byte_fallback=True,
        fuse_unk=True,
        unk_token=_unknown_piece(vocabulary),
    )
    prefix = vocabulary.add_space_prefix is not False
    steps = [normalizers.Prepend(SPACE)] if prefix else []
    encoder = tokenizers.Tokenizer(model)
    encoder.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    return _assemble(vocabulary, encoder, sentencepiece, add_bos=True, leading_space=prefix)


def _check_spaces(vocabulary: GgufVocabulary) -> None:
    """ModelError if words begin as in another family: every text would be cut into noise."""
    written = {token[0] for token in vocabulary.tokens if token}
    if BYTE_SPACE in written and SPACE not in written:
        raise ModelError(
            f"tokenizer.ggml.model is '{vocabulary.model}', whose words begin with {SPACE}, but "
            f"those of this file begin with {BYTE_SPACE}, as in 'gpt2': what wrote it did not know "
            "the tokenizer. Give that of the original model (--tokenizer PATH), or convert again"
        )


def _plain_bpe(vocabulary: GgufVocabulary) -> Tokenizer:
    model = models.BPE(
        vocab=vocabulary.ids,
        merges=_merges(vocabulary),
        byte_fallback=True,
        fuse_unk=True,
        unk_token=_unknown_piece(vocabulary),
    )
    encoder = tokenizers.Tokenizer(model)
    encoder.normalizer = normalizers.Replace(" ", SPACE)
    encoder.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), "isolated")
    return _assemble(vocabulary, encoder, sentencepiece, add_bos=True)


def _unigram(vocabulary: GgufVocabulary) -> Tokenizer:
    if vocabulary.scores is None:
        raise _missing("scores", vocabulary)
    if vocabulary.unknown is None:
        raise _missing("unknown_token_id", vocabulary)
    model = models.Unigram(
        vocab=list(zip(vocabulary.tokens, vocabulary.scores, strict=True)),
        unk_id=vocabulary.unknown,
        byte_fallback=bool(vocabulary.of_kind(BYTE)),
    )
    prefix = vocabulary.add_space_prefix is True
    steps: list[normalizers.Normalizer] = []
    if vocabulary.charsmap is not None:
        steps.append(normalizers.Precompiled(vocabulary.charsmap))
    if vocabulary.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z|(?<= ) +"), ""))
    steps += [normalizers.Prepend(SPACE)] if prefix else []
    encoder = tokenizers.Tokenizer(model)
    encoder.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    return _assemble(vocabulary, encoder, sentencepiece, add_eos=True, leading_space=prefix)


_FAMILIES: Final[Mapping[str, Callable[[GgufVocabulary], Tokenizer]]] = MappingProxyType(
    {
        "gpt2": _byte_level_bpe,
        "llama": _sentencepiece_bpe,
        "gemma4": _plain_bpe,
        "t5": _unigram,
    }
)


def _merges(vocabulary: GgufVocabulary) -> list[tuple[str, str]]:
    if vocabulary.merges is None:
        raise _missing("merges", vocabulary)
    ids = vocabulary.ids
    pairs: list[tuple[str, str]] = []
    for merge in vocabulary.merges:
        left, _, right = merge.partition(" ")
        if left not in ids or right not in ids or left + right not in ids:
            raise ModelError(
                f"tokenizer.ggml.merges holds '{merge}', which joins no two tokens into a third; "
                "the file is damaged, get it again"
            )
        pairs.append((left, right))
    return pairs


def _merges_by_score(vocabulary: GgufVocabulary, scores: list[float]) -> list[tuple[str, str]]:
    """Every way to join two tokens into a third, best score first."""
    ids = vocabulary.ids
    merges: list[tuple[str, str]] = []
    for token in sorted(vocabulary.of_kind(NORMAL), key=scores.__getitem__, reverse=True):
        piece = vocabulary.tokens[token]
        for cut in range(1, len(piece)):
            left = piece[:cut]
            if left in ids:
                right = piece[cut:]
                if right in ids:
                    merges.append((left, right))
    return merges


def _unknown_piece(vocabulary: GgufVocabulary) -> str | None:
    return None if vocabulary.unknown is None else vocabulary.tokens[vocabulary.unknown]


def _missing(key: str, vocabulary: GgufVocabulary) -> ModelError:
    return ModelError(
        f"the file has no tokenizer.ggml.{key}, which a '{vocabulary.model}' vocabulary needs; "
        "convert the model again, with its tokenizer"
    )


def _assemble(
    vocabulary: GgufVocabulary,
    encoder: tokenizers.Tokenizer,
    spelling: Spelling,
    *,
    add_bos: bool = False,
    add_eos: bool = False,
    leading_space: bool = False,
) -> Tokenizer:
    """Put the pieces together; the file's own switches go before the family's."""
    special = frozenset([*vocabulary.of_kind(CONTROL, UNKNOWN), *vocabulary.ends])
    plain = vocabulary.of_kind(USER_DEFINED)
    encoder.add_tokens(
        [
            AddedToken(vocabulary.tokens[token], special=token in special, normalized=False)
            for token in sorted(special.union(plain))
        ]
    )
    before = add_bos if vocabulary.add_bos is None else vocabulary.add_bos
    after = add_eos if vocabulary.add_eos is None else vocabulary.add_eos
    roles = SpecialTokens(
        bos=vocabulary.bos,
        eos=vocabulary.eos,
        unknown=vocabulary.unknown,
        padding=vocabulary.padding,
        ends=vocabulary.ends,
        before=(vocabulary.bos,) if before and vocabulary.bos is not None else (),
        after=(vocabulary.eos,) if after and vocabulary.eos is not None else (),
    )
    pieces = Vocabulary(vocabulary.tokens, spelling, special, special.union(plain))
    return Tokenizer(encoder, pieces, roles, leading_space=leading_space)
