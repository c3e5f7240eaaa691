"""API keys: who may enter.

Guards every route but /health and the pages, which hold nothing secret and cannot be asked for with
a key; OPTIONS never authenticates, since browsers send pre-flights bare.
"""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from aphrodite_server.errors import ApiError
from aphrodite_server.routes.pages import is_page

_OPEN_PATHS = frozenset({"/health"})


class ApiKeys:
    """ASGI middleware that lets requests with a known key pass."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or pass the request on."""
        if scope["type"] != "http" or self._passes(scope):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "this server wants an API key; send it as 'Authorization: Bearer KEY' or 'x-api-key'",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error.response(scope, receive, send)

    def _passes(self, scope: Scope) -> bool:
        if not self._digests or scope["method"] == "OPTIONS":
            return True
        if scope["path"] in _OPEN_PATHS or is_page(scope["path"]):
            return True
        given = [_digest(key.encode("latin-1")) for key in _keys_of(Headers(scope=scope))]
        # No early end: the time taken says nothing about the keys.
        matches = [hmac.compare_digest(one, known) for one in given for known in self._digests]
        return any(matches)


def _keys_of(headers: Headers) -> list[str]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = [token.strip()] if scheme.lower() == "bearer" else []
    return [*bearer, *headers.getlist("x-api-key")]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
