"""How byte-level BPE vocabularies cut a text into words before they merge.

A GGUF file only names the way (`tokenizer.ggml.pre`); the patterns are the ones that the models
were trained with, or, where those need what the common engines lack, the ones by which GGUF is
used in practice. Each pattern cuts what the one before it left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tokenizers import Regex, pre_tokenizers

from aphrodite_engine.errors import ModelError


@dataclass(frozen=True)
class WordRule:
    """One way to cut."""

    patterns: tuple[str, ...]
    """Applied in turn; a match is a word, and so is what lies between matches."""
    whole_words: bool = False
    """A word that is a token is taken as it is, whatever the merges say."""
    add_bos: bool = False
    """Begin-of-text precedes a text, unless the metadata say otherwise."""


_CONTRACTION = r"'(?i:[sdmt]|ll|ve|re)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_SYMBOLS}"
_QWEN2 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_SYMBOLS}"

_gpt2 = WordRule((_GPT2,))
_digits_gpt2 = WordRule((r"\p{N}", _GPT2))
_llama3 = WordRule((_LLAMA3,), whole_words=True, add_bos=True)
_qwen2 = WordRule((_QWEN2,))

RULES: Final[Mapping[str, WordRule]] = MappingProxyType(
    {
        "gpt-2": _gpt2,
        "mpt": _gpt2,
        "smollm": _digits_gpt2,
        "starcoder": _digits_gpt2,
        "refact": _digits_gpt2,
        "command-r": _digits_gpt2,
        "llama3": _llama3,
        "llama-v3": _llama3,
        "llama-bpe": _llama3,
        "qwen2": _qwen2,
        "deepseek-r1-qwen": _qwen2,
    }
)


def rule_named(name: str) -> WordRule:
    """The rule of `tokenizer.ggml.pre`."""
    if name not in RULES:
        raise ModelError(
            f"tokenizer.ggml.pre is '{name}', a pre-tokenizer this engine does not know; "
            f"known: {', '.join(sorted(RULES))}"
        )
    return RULES[name]


def pre_tokenizer(rule: WordRule) -> pre_tokenizers.PreTokenizer:
    """The rule at work, bytes spelt as printable characters."""
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rule.patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*steps, byte_level])
