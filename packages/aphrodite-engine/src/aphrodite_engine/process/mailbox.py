"""News of one request, on the way to its reader.

A slow reader costs no more memory than its own completion: news of a choice that is already
waiting is merged into what waits, so at most one record per choice is held.
"""

import asyncio
import logging

import msgspec

from aphrodite_engine.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    InternalError,
    OverloadedError,
    RequestError,
)
from aphrodite_engine.outputs import EngineStats, RequestOutput
from aphrodite_engine.process.messages import News, Refused, ToFront

_log = logging.getLogger(__name__)


def merge(first: RequestOutput, second: RequestOutput) -> RequestOutput:
    """Two records of one choice, as one; of a choice that was taken back, what came after that."""
    if first.rewinds != second.rewinds:
        return second
    return msgspec.structs.replace(
        second,
        tokens=first.tokens + second.tokens,
        logprobs=first.logprobs + second.logprobs,
        prompt_logprobs=first.prompt_logprobs + second.prompt_logprobs,
        explanations=first.explanations + second.explanations,
        cached_tokens=max(first.cached_tokens, second.cached_tokens),
    )


class Mailbox:
    """Written by the channel's reader, read by the request's own task."""

    def __init__(self) -> None:
        self._waiting: dict[int, RequestOutput] = {}
        self._error: Exception | None = None
        self._arrived = asyncio.Event()

    def put(self, output: RequestOutput) -> None:
        """Deliver news."""
        before = self._waiting.get(output.choice)
        self._waiting[output.choice] = merge(before, output) if before else output
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        """Deliver the end: `take` raises it once all news is read."""
        self._error = error
        self._arrived.set()

    async def take(self) -> list[RequestOutput]:
        """All news there is, at least one record; raises the error that `fail` left."""
        await self._arrived.wait()
        self._arrived.clear()
        if self._waiting:
            if self._error is not None:
                self._arrived.set()
            waiting, self._waiting = self._waiting, {}
            return list(waiting.values())
        if self._error is None:
            raise AssertionError("a mailbox woke without news")
        self._arrived.set()
        raise self._error


class Mailroom:
    """The mailboxes of all running requests, and the latest statistics."""

    def __init__(self) -> None:
        self.stats = EngineStats()
        self._boxes: dict[str, Mailbox] = {}

    def open(self, request_id: str) -> Mailbox:
        """A box for a new request; RequestError if the id is in use."""
        if request_id in self._boxes:
            raise RequestError(f"request id {request_id!r} is already running", "request_id")
        return self._boxes.setdefault(request_id, Mailbox())

    def close(self, request_id: str) -> None:
        """Drop a box; later news of it is ignored."""
        self._boxes.pop(request_id, None)

    def deliver(self, message: ToFront) -> None:
        """Sort one message from the engine into the boxes."""
        match message:
            case News(outputs, stats):
                self.stats = stats
                for output in outputs:
                    if (box := self._boxes.get(output.id)) is not None:
                        box.put(output)
            case Refused(request_id):
                if (box := self._boxes.get(request_id)) is not None:
                    box.fail(refusal(message))
            case _:
                _log.error("unexpected message %s", type(message).__name__)

    def fail_all(self, error: EngineDeadError) -> None:
        """The engine died: so did every request."""
        for box in self._boxes.values():
            box.fail(error)


def refusal(message: Refused) -> EngineError:
    """The error that the engine process meant."""
    match message.kind:
        case "context":
            return ContextLengthError(message.message, message.field)
        case "request":
            return RequestError(message.message, message.field)
        case "overloaded":
            return OverloadedError(message.message)
        case "internal":
            return InternalError(message.message)
