"""/api/v1/generate and what belongs to it: the Kobold API, as Kobold Lite and others speak it."""

from functools import partial
from typing import Any

from aphrodite_engine.errors import RequestError
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from aphrodite_server.errors import describe
from aphrodite_server.generation import Generation, Order
from aphrodite_server.kobold import fitted, kobold_params
from aphrodite_server.kobold_runs import ERROR_EVENT, Key, Run, Runs
from aphrodite_server.kobold_schema import KoboldKey, KoboldRequest
from aphrodite_server.service import Service, answer_whole, new_id
from aphrodite_server.streaming import EventStream
from aphrodite_server.translate import check_streams


def router(service: Service) -> APIRouter:
    """Text that continues a prompt."""
    routes = APIRouter()
    runs = Runs()

    @routes.post("/api/v1/generate", response_model=None)
    @routes.post("/api/latest/generate", response_model=None, include_in_schema=False)
    async def generate(request: Request, body: KoboldRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Continue a prompt."""
        generation, run, headers = await _begun(service, request, body)
        content = runs.whole(_key(request, body.genkey), run)
        return await answer_whole(request, generation, content, headers)

    @routes.post("/api/extra/generate/stream", response_model=None)
    async def stream(request: Request, body: KoboldRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Continue a prompt, piece by piece."""
        if body.given.get("n") not in (None, 1):
            raise RequestError("n must be 1 on a stream, whose events name no choice", "n")
        generation, run, headers = await _begun(service, request, body, streamed=True)
        events = runs.events(_key(request, body.genkey), run)
        tell = partial(_told, generation)
        return EventStream(events, tell, headers, error_head=ERROR_EVENT, end=b"")

    @routes.get("/api/extra/generate/check")
    async def check(request: Request, genkey: str = "") -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """The text so far of a request that runs."""
        return _results(runs.texts(_key(request, genkey)))

    @routes.post("/api/extra/generate/check")
    async def check_key(request: Request, body: KoboldKey | None = None) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """The text so far of a request that runs."""
        return _results(runs.texts(_key(request, body and body.genkey)))

    @routes.post("/api/extra/abort")
    async def abort(request: Request, body: KoboldKey | None = None) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """End requests that run: what they have so far is their answer."""
        return {"success": runs.abort(_key(request, body and body.genkey))}

    return routes


async def _begun(
    service: Service, request: Request, body: KoboldRequest, *, streamed: bool = False
) -> tuple[Generation, Run, dict[str, str]]:
    """The generation of a body, how it is read, and the headers of its answer."""
    headers = service.check(body, None)
    made = await fitted(service.engine, body)
    params = kobold_params(body, made.max_tokens, service.presets)
    if streamed:
        check_streams(params)
    generation = service.begin(request, Order(new_id("kobold"), [made.prompt], params))
    return generation, Run(generation, params.n), {**headers, **made.headers}


def _told(generation: Generation, error: Exception) -> bytes:
    return describe(error, started=generation.started).kobold_envelope


def _key(request: Request, genkey: str | None) -> Key:
    """A client without a key is known by its address."""
    if genkey:
        return Key(genkey, "")
    return Key("", request.client.host if request.client else "")


def _results(texts: list[str]) -> dict[str, Any]:
    return {"results": [{"text": text} for text in texts]}
