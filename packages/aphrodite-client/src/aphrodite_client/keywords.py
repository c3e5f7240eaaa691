"""What both clients share: defaults, and which keywords travel where."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

DEFAULT_URL: Final = "http://localhost:2242/v1"
DEFAULT_MODEL: Final = "default"
"""Whatever the server has."""
Prompt = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


def sort_keywords(
    create: Callable[..., Any], fields: Mapping[str, Any], extra: Mapping[str, object] | None
) -> dict[str, Any]:
    """Keywords for the official `create`; `extra` goes before a field of the same name."""
    known = inspect.signature(create).parameters
    own = {name: value for name, value in fields.items() if name in known}
    further = {name: value for name, value in fields.items() if name not in known}
    body: dict[str, Any] = {**further, **(own.get("extra_body") or {}), **(extra or {})}
    return {**own, "extra_body": body} if body else own


def token_body(text: object, *, add_special_tokens: bool, return_token_strs: bool) -> object:
    """Body of a tokenize request: of a text, or of a conversation."""
    options = {"return_token_strs": return_token_strs}
    if isinstance(text, str):
        return {"prompt": text, "add_special_tokens": add_special_tokens, **options}
    return {"messages": list(cast("Any", text)), **options}


def explain_body(
    text: object, model: str, fields: Mapping[str, Any], extra: Mapping[str, object] | None
) -> object:
    """Body of an explain request: of a prompt, text or tokens, or of a conversation."""
    prompt = text if isinstance(text, str) else list(cast("Sequence[Any]", text))
    conversation = bool(prompt) and isinstance(prompt[0], Mapping)
    given = {"messages" if conversation else "prompt": prompt}
    return {**given, "model": model, **fields, **(extra or {})}


def health_url(base_url: object) -> str:
    """Beside the API, not under it."""
    return f"{str(base_url).rstrip('/').removesuffix('/v1')}/health"
