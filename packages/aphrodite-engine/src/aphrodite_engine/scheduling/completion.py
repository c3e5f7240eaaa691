"""What the tokens of a step do to a request: what is kept, and whether it is over."""

from typing import NamedTuple

from aphrodite_engine.request import FinishReason, Request


class Progress(NamedTuple):
    """What one row's tokens came to."""

    tokens: list[int]
    """Those that belong to the completion; what follows a stop does not."""
    finish_reason: FinishReason | None
    stop_reason: int | None


def take_tokens(request: Request, tokens: list[int], end_tokens: frozenset[int]) -> Progress:
    """Append tokens to the output up to a stop or the limit."""
    output = request.output
    for index, token in enumerate(tokens):
        output.append(token)
        if token in request.stop_tokens and len(output) > request.params.min_tokens:
            stop_reason = None if token in end_tokens else token
            return Progress(tokens[: index + 1], "stop", stop_reason)
        if len(output) >= request.max_tokens:
            return Progress(tokens[: index + 1], "length", None)
    return Progress(tokens, None if request.max_tokens else "length", None)
