"""The ASGI application: routes, and what stands around them."""

from aphrodite_engine.async_engine import AsyncEngine
from aphrodite_engine.errors import EngineError
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from aphrodite_server import __version__
from aphrodite_server.auth import ApiKeys
from aphrodite_server.errors import ApiError, describe
from aphrodite_server.gates import AccessLog, BodyGate, Defects, RequestIds
from aphrodite_server.kobold import CLAMPED_HEADER
from aphrodite_server.routes import (
    chat,
    completions,
    kobold,
    kobold_info,
    models,
    operations,
    pages,
    samplers,
    tokenize,
)
from aphrodite_server.service import IGNORED_HEADER, Service
from aphrodite_server.settings import Settings

_ROUTERS = (completions, chat, kobold, kobold_info, models, samplers, tokenize, operations)
_KOBOLD = "/api/"


def create_app(engine: AsyncEngine, settings: Settings) -> FastAPI:
    """The server of one engine; whoever made the engine closes it."""
    service = Service(engine, settings)
    app = FastAPI(
        title="Aphrodite",
        version=__version__,
        middleware=_middleware(settings),
        redirect_slashes=False,
        docs_url=None,  # a page of our own: theirs is loaded from another host
        redoc_url=None,
        strict_content_type=False,
    )
    for group in _ROUTERS:
        app.include_router(group.router(service))
    app.include_router(pages.router())
    for kind in (HTTPException, RequestValidationError, EngineError, ClientDisconnect):
        app.add_exception_handler(kind, _answer)
    return app


def _middleware(settings: Settings) -> list[Middleware]:
    """From the outside in: errors of each pass through those before it, so all carry CORS."""
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=["*"],
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[IGNORED_HEADER, CLAMPED_HEADER, "X-Request-Id", "Retry-After"],
        ),
        Middleware(AccessLog),
        Middleware(RequestIds),
        Middleware(ApiKeys, keys=settings.api_keys),
        Middleware(Defects),
        Middleware(BodyGate, limit=settings.max_body_bytes),
    ]


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        error = _no_route(request, error)
    told = describe(error)
    return told.kobold_response if request.url.path.startswith(_KOBOLD) else told.response


def _no_route(request: Request, error: HTTPException) -> HTTPException:
    """A sentence in place of "Not Found"; errors of our own have theirs."""
    if isinstance(error, ApiError):
        return error
    what = f"{request.method} {request.url.path}"
    allowed = sorted((error.headers or {}).get("Allow", "").replace(",", " ").split())
    cure = f"it takes {' and '.join(allowed)}" if allowed else "/docs lists what does"
    message = f"{what} does not exist on this server; {cure}"
    return ApiError(error.status_code, message, headers=error.headers)
