"""Where a model's chat template comes from: the operator, the GGUF metadata or files beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from aphrodite_engine.errors import ConfigError, ModelError
from aphrodite_engine.text.chat_template import ChatTemplate
from aphrodite_engine.text.tokenizer import Tokenizer

_GGUF_KEY = "tokenizer.chat_template"
_TOOL_NAME = "tool_use"


def gguf_chat_template(
    metadata: Mapping[str, Any], tokenizer: Tokenizer, override: str | None = None
) -> ChatTemplate:
    """The template of a GGUF file, or the operator's (`--chat-template`) in its place."""
    if override is not None:
        return _overriding(override, tokenizer)
    source = _text(metadata.get(_GGUF_KEY), _GGUF_KEY)
    tool_key = f"{_GGUF_KEY}.{_TOOL_NAME}"
    tool_source = _text(metadata.get(tool_key), tool_key)
    return ChatTemplate(source, tokenizer, tool_source=tool_source)


def directory_chat_template(
    directory: Path, tokenizer: Tokenizer, override: str | None = None
) -> ChatTemplate:
    """The template of a Hugging Face directory, or the operator's in its place.

    `chat_template.jinja` goes before `chat_template.json` and `tokenizer_config.json`.
    """
    if override is not None:
        return _overriding(override, tokenizer)
    jinja = directory / "chat_template.jinja"
    if jinja.is_file():
        return ChatTemplate(_read(jinja), tokenizer)
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = directory / name
        if path.is_file() and (sources := _named(path)):
            default = sources.get("default")
            return ChatTemplate(default, tokenizer, tool_source=sources.get(_TOOL_NAME))
    return ChatTemplate(None, tokenizer)


def _overriding(override: str, tokenizer: Tokenizer) -> ChatTemplate:
    if "{%" in override or "{{" in override:
        return ChatTemplate(override, tokenizer)
    path = Path(override)
    if not path.is_file():
        raise ConfigError(
            f"--chat-template '{override}' is neither a file nor a Jinja template; "
            "give the path of a file"
        )
    return ChatTemplate(_read(path), tokenizer)


def _named(path: Path) -> Mapping[str, str]:
    """Templates of a JSON file by name; one without a name is `default`."""
    try:
        config = json.loads(_read(path))
    except ValueError as error:
        raise ModelError(f"{path} is no valid JSON: {error}; get the file again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} should hold a JSON object; get the file again")
    value = cast("dict[str, Any]", config).get("chat_template")
    if isinstance(value, list):
        entries = cast("list[Any]", value)
        return {str(entry["name"]): str(entry["template"]) for entry in entries}
    source = _text(value, f"chat_template of {path}")
    return {} if source is None else {"default": source}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error


def _text(value: object, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ModelError(f"{name} should be text, but holds {value!r:.60}; get the file again")
