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


_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_QWEN2 = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}|{_SYMBOLS}|{_SPACES}"
_LLAMA3 = rf"{_CONTRACTION}|{_LETTERS}|\p{{N}}{{1,3}}|{_SYMBOLS}|{_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
# Words that end in capitals are cut from words that end in small letters.
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LOWER_WORD = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
_UPPER_WORD = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_TEKKEN = rf"{_LOWER_WORD}|{_UPPER_WORD}|\p{{N}}|{_PATHS}|{_SPACES}"
_GPT4O = (
    rf"{_LOWER_WORD}{_CONTRACTION}?|{_UPPER_WORD}{_CONTRACTION}?|\p{{N}}{{1,3}}|{_PATHS}|{_SPACES}"
)
_CHINESE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CHINESE_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
# The letters with case of an older Unicode, before these ranges had any.
_CASED = (
    r"[[\p{Lu}\p{Ll}\p{Lt}]&&"
    "[^\u0560-\u0588\u10c7-\u10ff\u1c80-\u1c8a\u2d00-\u2d2d\ua790-\uab68"
    "\U00010570-\U000105bc\U00010d50-\U00010d85\U00016e40-\U0001df2a]]"
)
_WIDE_SYMBOLS = "[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)
_THREE_DIGITS = "[0-9][0-9][0-9]"

_gpt2 = WordRule((_GPT2,))
_digits_gpt2 = WordRule((r"\p{N}", _GPT2))
_llama3 = WordRule((_LLAMA3,), whole_words=True, add_bos=True)
_qwen2 = WordRule((_QWEN2,))
_gpt4o = WordRule((_GPT4O,))

RULES: Final[Mapping[str, WordRule]] = MappingProxyType(
    {
        "default": WordRule((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", _THREE_DIGITS)),
        "gpt-2": _gpt2,
        "phi-2": _gpt2,
        "mpt": _gpt2,
        "olmo": _gpt2,
        "exaone4": _gpt2,
        "smollm": _digits_gpt2,
        "starcoder": _digits_gpt2,
        "refact": _digits_gpt2,
        "command-r": _digits_gpt2,
        "codeshell": _digits_gpt2,
        "exaone": _digits_gpt2,
        "llama3": _llama3,
        "llama-v3": _llama3,
        "llama-bpe": _llama3,
        "falcon3": _llama3,
        "falcon-h1": _llama3,
        "lfm2": _llama3,
        "pixtral": _llama3,
        "dbrx": WordRule((_LLAMA3,)),
        "smaug-bpe": WordRule((_LLAMA3,)),
        "chatglm-bpe": WordRule((_LLAMA3,)),
        "glm4": WordRule((_LLAMA3,), whole_words=True),
        "qwen2": _qwen2,
        "deepseek-r1-qwen": _qwen2,
        "stablelm2": _qwen2,
        "megrez": _qwen2,
        "hunyuan": _qwen2,
        "qwen35": WordRule((_QWEN35,)),
        "tekken": WordRule((_TEKKEN,), whole_words=True, add_bos=True),
        "gpt-4o": _gpt4o,
        "llama4": _gpt4o,
        "falcon": WordRule((r"[\p{P}$+<=>^~|`]+", _GPT2, _THREE_DIGITS)),
        "deepseek-llm": WordRule(
            (r"[\r\n]", rf"\s?{_CASED}+", rf"\s?{_WIDE_SYMBOLS}", r"\s+$", _CHINESE, r"\p{N}+")
        ),
        "deepseek-coder": WordRule((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE, r"\p{N}")),
        "deepseek-v3": WordRule((r"\p{N}{1,3}", _CHINESE_AND_KANA, _DEEPSEEK_V3)),
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
