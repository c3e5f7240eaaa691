"""The text half of a model: tokenizer and chat template, without its weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from aphrodite_quant.containers.gguf_header import MetadataValue
from aphrodite_quant.location import Location, find_weights

from aphrodite_engine.config import EngineConfig
from aphrodite_engine.loading.file_errors import file_error
from aphrodite_engine.loading.read_ahead import read_ahead
from aphrodite_engine.loading.source import find_model_path
from aphrodite_engine.text.chat_template import ChatTemplate
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_engine.text.hf_tokenizer import directory_tokenizer
from aphrodite_engine.text.template_source import directory_chat_template, gguf_chat_template
from aphrodite_engine.text.tokenizer import Tokenizer

Metadata: TypeAlias = Mapping[str, MetadataValue]


@dataclass(frozen=True, slots=True)
class TextModel:
    """What turns conversations into tokens and tokens into text."""

    path: Path
    """Of the model: a local file or directory."""
    tokenizer: Tokenizer
    template: ChatTemplate


def load_text(config: EngineConfig, progress: Callable[[str], None]) -> TextModel:
    """Find the model, downloading it if need be, and read its tokenizer and template.

    Its weights are on their way from the disk from here on.

    Raises:
        ModelError: there is no such model, or it has no usable tokenizer.
        ConfigError: the chat template given is none.
    """
    try:
        path = find_model_path(config.model, config.revision, config.download_dir)
        progress(f"model: {path}")
        location = find_weights(path)
        location.check_files()
        read_ahead(location.weight_files())
        metadata = location.read_metadata()
        tokenizer = _tokenizer(config, location, metadata)
        return TextModel(path, tokenizer, _template(config, location, metadata, tokenizer))
    except Exception as error:
        known = file_error(error)
        if known is None or known is error:
            raise
        raise known from error


def _tokenizer(config: EngineConfig, location: Location, metadata: Metadata) -> Tokenizer:
    if config.tokenizer is not None:
        return directory_tokenizer(
            find_model_path(config.tokenizer, config.revision, config.download_dir)
        )
    if location.kind == "gguf":
        return gguf_tokenizer(metadata)
    return directory_tokenizer(location.path)


def _template(
    config: EngineConfig, location: Location, metadata: Metadata, tokenizer: Tokenizer
) -> ChatTemplate:
    if location.kind == "gguf":
        return gguf_chat_template(metadata, tokenizer, config.chat_template)
    return directory_chat_template(location.path, tokenizer, config.chat_template)
