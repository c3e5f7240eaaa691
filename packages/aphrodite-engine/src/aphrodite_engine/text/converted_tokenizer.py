"""Tokenizers in the formats before `tokenizer.json`, converted by `transformers`.

`transformers` is optional and imported here alone.
"""

from pathlib import Path
from typing import Final

import tokenizers

from aphrodite_engine.errors import ModelError

_FILES: Final = ("*.model", "vocab.*", "*.tiktoken")


def converted_tokenizer(directory: Path) -> tokenizers.Tokenizer:
    """The directory's tokenizer (`tokenizer.model`, `vocab.json` + `merges.txt`, …), converted."""
    if not any(path for pattern in _FILES for path in directory.glob(pattern)):
        raise ModelError(
            f"{directory} has neither tokenizer.json nor an older tokenizer; "
            "name a directory that has one with --tokenizer"
        )
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise ModelError(
            f"{directory} has no tokenizer.json, and converting its tokenizer takes the package "
            "transformers: pip install transformers sentencepiece"
        ) from error
    try:
        found = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)  # pyright: ignore[reportUnknownVariableType]
    except Exception as error:  # the library raises bare Exception on a bad file
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{directory} has no tokenizer.json, and its tokenizer cannot be converted: {reason}; "
            "pip install sentencepiece, or save it with transformers' save_pretrained"
        ) from error
    if not isinstance(found, PreTrainedTokenizerFast):
        raise ModelError(
            f"{directory} has no tokenizer.json, and its tokenizer has no fast form; "
            "save one with transformers' save_pretrained"
        )
    return found.backend_tokenizer
