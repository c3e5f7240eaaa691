"""The text half of a model: tokenizer and chat template, without its weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aphrodite_quant import Checkpoint, open_checkpoint

from aphrodite_engine.config import EngineConfig
from aphrodite_engine.loading.errors import loading_error
from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.text.chat_template import ChatTemplate
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_engine.text.hf_tokenizer import directory_tokenizer
from aphrodite_engine.text.template_source import directory_chat_template, gguf_chat_template
from aphrodite_engine.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextModel:
    """What turns conversations into tokens and tokens into text."""

    path: Path
    """Of the model: a local file or directory."""
    tokenizer: Tokenizer
    template: ChatTemplate


def load_text(config: EngineConfig, progress: Callable[[str], None]) -> TextModel:
    """Find the model, downloading it if need be, and read its tokenizer and template.

    Raises:
        ModelError: there is no such model, or it has no usable tokenizer.
        ConfigError: the chat template given is none.
    """
    try:
        path = find_model_path(config.model, config.revision, config.download_dir)
        progress(f"model: {path}")
        checkpoint = open_checkpoint(path)
        tokenizer = _tokenizer(config, checkpoint)
        return TextModel(path, tokenizer, _template(config, checkpoint, tokenizer))
    except Exception as error:
        known = loading_error(error)
        if known is None or known is error:
            raise
        raise known from error


def _tokenizer(config: EngineConfig, checkpoint: Checkpoint) -> Tokenizer:
    if config.tokenizer is not None:
        return directory_tokenizer(
            find_model_path(config.tokenizer, config.revision, config.download_dir)
        )
    if checkpoint.kind == "gguf":
        return gguf_tokenizer(checkpoint.metadata)
    return directory_tokenizer(checkpoint.path)


def _template(config: EngineConfig, checkpoint: Checkpoint, tokenizer: Tokenizer) -> ChatTemplate:
    if checkpoint.kind == "gguf":
        return gguf_chat_template(checkpoint.metadata, tokenizer, config.chat_template)
    return directory_chat_template(checkpoint.path, tokenizer, config.chat_template)
