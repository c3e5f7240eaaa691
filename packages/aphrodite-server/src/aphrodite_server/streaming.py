"""Server-sent events, and clients that go away.

The first event is awaited before the status is sent, so a bad request is an HTTP error even if it
asked for a stream; a later error is an event of its own. A client that disconnects cancels the
work at once, whether it streams or waits for the whole answer.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aphrodite_server.replies import DONE

T = TypeVar("T")
_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Proxies must pass events on as they come."""


class EventStream(Response):
    """A response of events. `describe` writes an error that came too late for a status.

    `error_head` begins the event of such an error, `end` is sent last.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        describe: Callable[[Exception], bytes],
        headers: Mapping[str, str],
        *,
        error_head: bytes = b"data: ",
        end: bytes = DONE,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**_HEADERS, **headers})
        self._events = events
        self._describe = describe
        self._error_head = error_head
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client goes."""
        try:
            await while_connected(receive, self._pump(send))
        except ClientDisconnect:
            return  # nobody reads the rest

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            body = await anext(events)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                async for body in events:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            except OSError:
                raise ClientDisconnect from None
            except Exception as error:
                body = self._error_head + self._describe(error) + b"\n\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": self._end, "more_body": False})


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of work; it is cancelled when the client disconnects.

    Raises:
        ClientDisconnect: the client went first.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
