"""Tokenizers in the formats before `tokenizer.json`, converted by `transformers`.

`transformers` is optional and imported here alone.
"""

from pathlib import Path

import tokenizers

from aphrodite_engine.errors import ModelError


def converted_tokenizer(directory: Path) -> tokenizers.Tokenizer:
    """The directory's tokenizer (`tokenizer.model`, `vocab.json` + `merges.txt`), converted."""
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise ModelError(
            f"{directory} has no tokenizer.json, and converting its tokenizer takes the package "
            "transformers: pip install transformers sentencepiece"
        ) from error
    try:
        converted: object = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)  # pyright: ignore[reportUnknownVariableType]
    except (ImportError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{directory} has no tokenizer.json, and its tokenizer cannot be converted: {error}"
        ) from error
    if not isinstance(converted, PreTrainedTokenizerFast):
        raise ModelError(
            f"{directory} has no tokenizer.json, and {type(converted).__name__} has no fast form; "
            "save one with transformers' save_pretrained"
        )
    return converted.backend_tokenizer
