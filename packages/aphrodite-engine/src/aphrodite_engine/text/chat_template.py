"""Conversations to prompts, by the model's own template.

Messages are plain data: a role, a content (text, list of text parts, or None) and whatever else the
template reads. What a template refuses, or cannot digest, is the request's fault and says so.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final, cast

import jinja2

from aphrodite_engine.errors import ModelError, RequestError
from aphrodite_engine.text.template_environment import template_environment
from aphrodite_engine.text.tokenizer import Tokenizer

Message = Mapping[str, Any]

_PROBE: Final = "probe-of-the-content"
_MARK: Final = "MARK-OF-THE-END "
# What strangers' code may fail with on strangers' data.
_FAILURES: Final = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class ChatTemplate:
    """The template of one model; `source` None: it has none."""

    def __init__(
        self, source: str | None, tokenizer: Tokenizer, *, tool_source: str | None = None
    ) -> None:
        """ModelError if a source is no Jinja template. `tool_source` serves requests with tools."""
        self.source = source
        self._tokenizer = tokenizer
        self._template = None if source is None else _compiled(source)
        self._tool_template = self._template if tool_source is None else _compiled(tool_source)

    def tokens(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The prompt as tokens; begin-of-text is there if the template writes it."""
        text = self.render(
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=variables,
        )
        return self._tokenizer.encode(text, add_special=False)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt of a conversation.

        Args:
            messages: at least one, each with a `role`.
            tools: OpenAI's tool definitions, handed to the template as they are.
            add_generation_prompt: end with the opening of the assistant's turn; without effect
                on a message that is to be continued.
            continue_final_message: end inside the last message, for the model to go on.
            variables: further values for the template (`chat_template_kwargs`).

        Raises:
            RequestError: no template, malformed messages, or the template refuses them.
        """
        template = self._tool_template if tools else self._template
        if template is None:
            raise RequestError(
                "this model has no chat template; start the server with --chat-template FILE, "
                "or send a plain prompt to /v1/completions",
                "messages",
            )
        conversation = _conversation(messages, parts=self._wants_parts)
        if continue_final_message:
            _mark(conversation[-1])
        values = {
            **self._names,
            "documents": None,
            **(variables or {}),
            "messages": conversation,
            "tools": tools or None,
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }
        text = _rendered(template, values)
        return _cut(text) if continue_final_message else text

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """The special tokens by which templates call them."""
        special = self._tokenizer.special
        roles = {
            "bos_token": special.bos,
            "eos_token": special.eos,
            "unk_token": special.unknown,
            "pad_token": special.padding,
        }
        return {
            name: self._tokenizer.token_text(token)
            for name, token in roles.items()
            if token is not None
        }

    @cached_property
    def _wants_parts(self) -> bool:
        """The template reads contents as lists of parts only: found by trying."""
        assert self._template is not None, "asked only of a model with a template"
        if self._shows_probe(_PROBE):
            return False
        return self._shows_probe([{"type": "text", "text": _PROBE}])

    def _shows_probe(self, content: object) -> bool:
        assert self._template is not None, "asked only of a model with a template"
        message = {"role": "user", "content": content}
        values = {**self._names, "messages": [message], "add_generation_prompt": False}
        try:
            return _PROBE in self._template.render(values)
        except _FAILURES:
            return False


def _compiled(source: str) -> jinja2.Template:
    try:
        return template_environment().from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ModelError(
            f"the chat template is no valid Jinja: {error}; give another with --chat-template FILE"
        ) from error


def _rendered(template: jinja2.Template, values: Mapping[str, Any]) -> str:
    try:
        return template.render(values)
    except _FAILURES as error:
        raise RequestError(
            f"the chat template cannot render these messages: {error}; "
            "check roles, their order and contents",
            "messages",
        ) from error


def _conversation(messages: Sequence[Message], *, parts: bool) -> list[dict[str, Any]]:
    """Messages as the template wants their contents: as parts, or as text."""
    if not messages:
        raise RequestError("messages is empty; send at least one message", "messages")
    conversation: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise RequestError(
                f"messages[{place}] has no role; give it one, such as 'user'",
                f"messages[{place}].role",
            )
        texts = _texts(message.get("content"), place)
        content = [{"type": "text", "text": t} for t in texts] if parts else "\n".join(texts)
        conversation.append({**message, "content": content})
    return conversation


def _texts(content: object, place: int) -> list[str]:
    """Texts of a content, which is text, a list of parts, or None."""
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    field = f"messages[{place}].content"
    if not isinstance(content, list | tuple):
        raise RequestError(f"{field} must be text or a list of text parts", field)
    texts: list[str] = []
    for number, part in enumerate(cast("Sequence[object]", content)):
        text = _text_of(part)
        if text is None:
            kind = (
                cast("Mapping[str, Any]", part).get("type") if isinstance(part, Mapping) else part
            )
            raise RequestError(
                f"{field}[{number}] is of type {kind!r}, but this model reads text only; "
                'send {"type": "text", "text": …}',
                field,
            )
        texts.append(text)
    return texts


def _text_of(part: object) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return None
    fields = cast("Mapping[str, Any]", part)
    text = fields.get("text")
    return text if fields.get("type", "text") == "text" and isinstance(text, str) else None


def _mark(message: dict[str, Any]) -> None:
    """Make the end of a message's content visible in the rendered text."""
    content = message["content"]
    if isinstance(content, str):
        message["content"] = content + _MARK
    elif content:
        content[-1]["text"] += _MARK
    else:
        content.append({"type": "text", "text": _MARK})


def _cut(text: str) -> str:
    """The text up to the mark; the template may have trimmed the mark's own last space."""
    place = text.rfind(_MARK.rstrip())
    if place < 0:
        raise RequestError(
            "the chat template does not show the last message's content, so it cannot be "
            "continued; set continue_final_message to false",
            "continue_final_message",
        )
    kept = text[:place]
    return kept if text.startswith(_MARK, place) else kept.rstrip()
