"""What every request passes before it meets a route: log, ids, size, content type, defects."""

import logging
import time
import uuid
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aphrodite_server.errors import ApiError, describe

_LONGEST_ID = 128
_LEFT = 499
"""The status logged when the client went before the end; it was never sent."""
_POLLED = frozenset({"/health", "/metrics"})
_log = logging.getLogger(__name__)


class AccessLog:
    """Tells of every request once it is over; of those that machines repeat, only when debugging.

    A route may leave its `Generation` in the request's state: its tokens are told, too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watching what is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, ended = time.perf_counter(), _LEFT, False

        async def watched(message: Message) -> None:
            nonlocal status, ended
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                ended = not message.get("more_body", False)

        try:
            await self._app(scope, receive, watched)
        finally:
            level = logging.DEBUG if scope["path"] in _POLLED else logging.INFO
            seconds = time.perf_counter() - begin
            _log.log(level, "%s", _line(scope, status if ended else _LEFT, seconds))


def _line(scope: Scope, status: int, seconds: float) -> str:
    client = scope["client"][0] if scope.get("client") else "-"
    generation = scope.get("state", {}).get("generation")
    tokens = ""
    if generation is not None:
        tokens = f", {generation.prompt_tokens} + {generation.completion_tokens} tokens"
    path = quote(scope["path"])
    return f"{client} {scope['method']} {path:.200} {status}{tokens}, {seconds:.2f} s"


class RequestIds:
    """Echoes x-request-id, or gives one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; its response carries the id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")[:_LONGEST_ID]
        request_id = given or uuid.uuid4().hex

        async def named(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, named)


class Defects:
    """Turns an exception nobody expected into a 500; the others go on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; a response that has begun is cut off."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except ClientDisconnect:
            return
        except Exception as error:
            told = describe(error)
            if scope["type"] == "http" and not started:
                await told.response(scope, receive, send)


class BodyGate:
    """Refuses bodies that are too large or are not JSON."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its body."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        error = self._refusal(Headers(scope=scope))
        if error is not None:
            await error.response(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _refusal(self, headers: Headers) -> ApiError | None:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit:
            return self._too_large()
        kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind == "application/json" or kind.endswith("+json"):
            return None
        message = f"Unsupported Media Type: Only 'application/json' is allowed, found {kind!r}"
        return ApiError(400, message)

    def _too_large(self) -> ApiError:
        message = f"the body is larger than {self._limit} bytes; send a shorter one"
        return ApiError(413, message)
