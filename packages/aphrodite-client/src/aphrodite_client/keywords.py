"""What both clients share: defaults, and which keywords travel where."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, cast

from aphrodite_client.wire.bodies import ChatFields, CompletionFields, ExplainFields

DEFAULT_URL: Final = "http://localhost:2242/v1"
DEFAULT_MODEL: Final = "default"
"""Whatever the server has."""
Prompt = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


def sort_keywords(
    create: Callable[..., Any],
    kind: type[CompletionFields | ChatFields],
    fields: Mapping[str, Any],
    extra: Mapping[str, object] | None,
) -> dict[str, Any]:
    """Keywords for the official `create`; `extra` goes before a field of the same name.

    Raises:
        TypeError: neither it nor this client knows a keyword.
    """
    known = inspect.signature(create).parameters
    _check(fields, [*kind.__annotations__, *known])
    own = {name: value for name, value in fields.items() if name in known}
    further = {name: value for name, value in fields.items() if name not in known}
    body: dict[str, Any] = {**further, **(own.get("extra_body") or {}), **(extra or {})}
    return {**own, "extra_body": body} if body else own


def _check(fields: Mapping[str, Any], known: Sequence[str]) -> None:
    """A server ignores what it does not know, so a slip of the pen is caught here."""
    for name in fields.keys() - set(known):
        near = get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise TypeError(
            f"{name!r} is no keyword of this client{hint} Other names of a field, and fields "
            "that are newer than this client, go into extra"
        )


def token_body(text: object, *, add_special_tokens: bool, return_token_strs: bool) -> object:
    """Body of a tokenize request: of a text, or of a conversation."""
    options = {"return_token_strs": return_token_strs}
    if isinstance(text, str):
        return {"prompt": text, "add_special_tokens": add_special_tokens, **options}
    return {"messages": list(cast("Any", text)), **options}


def explain_body(
    text: object, model: str, fields: Mapping[str, Any], extra: Mapping[str, object] | None
) -> object:
    """Body of an explain request: of a prompt, text or tokens, or of a conversation.

    Raises:
        TypeError: this client does not know a keyword.
    """
    _check(fields, list(ExplainFields.__annotations__))
    prompt = text if isinstance(text, str) else list(cast("Sequence[Any]", text))
    conversation = bool(prompt) and isinstance(prompt[0], Mapping)
    given = {"messages" if conversation else "prompt": prompt}
    return {**given, "model": model, **fields, **(extra or {})}


def health_url(base_url: object) -> str:
    """Beside the API, not under it."""
    return f"{str(base_url).rstrip('/').removesuffix('/v1')}/health"
