"""The served model and the rules of this server: what every route works with."""

import logging
import uuid
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from aphrodite_engine.async_engine import AsyncEngine
from aphrodite_engine.errors import RequestError
from aphrodite_engine.loading.generation_config import sampling_defaults
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from aphrodite_server.errors import RETRY_AFTER, ApiError, describe
from aphrodite_server.fields import judge
from aphrodite_server.generation import Generation, Order
from aphrodite_server.metrics import Meter, Metrics
from aphrodite_server.presets import load_presets
from aphrodite_server.replies import Reply
from aphrodite_server.schema import GenerationRequest, Wire
from aphrodite_server.settings import Settings
from aphrodite_server.streaming import EventStream, while_connected

IGNORED_HEADER: Final = "X-Aphrodite-Ignored-Fields"
_MOST_IGNORED = 64
"""Names in the header, and names the log remembers per hundredfold."""
_log = logging.getLogger(__name__)


class Service:
    """One engine, its names and its rules."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = Metrics(engine)
        defaults = sampling_defaults(settings.generation_config, Path(engine.info.path))
        self.presets = replace(load_presets(settings), model=defaults)
        self.names = settings.served_model_names or (engine.info.name,)
        self._logged: set[str] = set()

    def check(self, body: Wire, model: str | None) -> dict[str, str]:
        """Judge a body; the headers that tell what was ignored.

        Raises:
            ApiError: no such model, or the engine is not there.
            RequestError: a field cannot be honoured.
        """
        if model not in (None, "default", *self.names):
            known = ", ".join(self.names)
            message = f"The model `{model}` does not exist; this server has: {known}"
            raise ApiError(404, message, param="model", code="model_not_found")
        judgement = judge(body.model_extra or {})
        if judgement.unknown and self.settings.strict_fields:
            name = judgement.unknown[0]
            raise RequestError(f"{name} is not a field that this server knows; leave it out", name)
        ignored = (*judgement.ignored, *self.presets.overruled(body.given))
        self._tell(ignored)
        return _header(ignored)

    def check_state(self) -> None:
        """ApiError while no engine answers."""
        state = self.engine.state
        if state == "restarting":
            message = "the engine is being restarted; try again in a few seconds"
            raise ApiError(503, message, headers={"Retry-After": RETRY_AFTER})
        if state == "stopped":
            raise ApiError(503, "the engine has stopped; restart the server")

    def priority(self, body: GenerationRequest) -> int:
        """RequestError: priorities are given but not honoured."""
        if body.priority and not self.settings.priorities:
            raise RequestError(
                f"priority needs a server started with --scheduling-policy priority, "
                f"found {body.priority}",
                "priority",
            )
        return body.priority or 0

    def begin(self, request: Request, order: Order) -> Generation:
        """Let the engine work as soon as the pieces are read. ApiError while no engine answers."""
        self.check_state()
        meter = Meter(self.metrics, order.params, sum(len(one.tokens) for one in order.prompts))
        generation = Generation(self.engine, order, meter)
        request.state.generation = generation
        return generation

    async def answer(
        self, request: Request, body: GenerationRequest, order: Order, reply: Reply
    ) -> Response:
        """Generate, and answer as the body asks: in one go, or as a stream."""
        headers = self.check(body, body.model)
        generation = self.begin(request, order)
        if body.stream:
            events = _events(generation, reply, body)

            def tell(error: Exception) -> bytes:
                return describe(error, started=generation.started).envelope

            return EventStream(events, tell, headers)
        return await answer_whole(request, generation, _whole(generation, reply), headers)

    def _tell(self, names: tuple[str, ...]) -> None:
        """Each name once."""
        for name in names:
            if name not in self._logged and len(self._logged) < 100 * _MOST_IGNORED:
                self._logged.add(name)
                _log.warning("request field %.100r is ignored (told once)", name)


async def answer_whole(
    request: Request,
    generation: Generation,
    content: Coroutine[Any, Any, bytes],
    headers: Mapping[str, str],
) -> Response:
    """An answer in one go, unless the client leaves: then the work is cancelled."""
    try:
        body = await while_connected(request.receive, content)
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it
    except Exception as error:
        raise describe(error, started=generation.started) from error
    return Response(body, headers=headers, media_type="application/json")


def new_id(prefix: str) -> str:
    """An id for a response."""
    return f"{prefix}-{uuid.uuid4().hex}"


def _header(names: tuple[str, ...]) -> dict[str, str]:
    shown = [quote(name[:100], safe="") for name in names[:_MOST_IGNORED]]
    return {IGNORED_HEADER: ", ".join(shown)} if shown else {}


async def _whole(generation: Generation, reply: Reply) -> bytes:
    return reply.whole([piece async for piece in generation.pieces()], generation)


async def _events(
    generation: Generation, reply: Reply, body: GenerationRequest
) -> AsyncGenerator[bytes]:
    options: Mapping[str, Any] = body.stream_options.given if body.stream_options else {}
    include_usage = bool(options.get("include_usage"))
    reply.start(include_usage=include_usage, continuous=bool(options.get("continuous_usage_stats")))
    async with aclosing(generation.pieces()) as pieces:
        async for piece in pieces:
            yield reply.chunk(piece, generation)
    if include_usage:
        yield reply.usage_chunk(generation)
