"""The server's pages: a playground at /, the API's reference at /docs.

They are files of the folder `pages`, load nothing from elsewhere and hold nothing secret: browsers
get them without a key, and ask for one before they call the API.
"""

from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

PAGES: Final = {"/": "playground.html", "/docs": "reference.html"}
FOLDER: Final = "/pages/"
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
}


def router() -> APIRouter:
    """Every file of the folder, pages under a path of their own, too."""
    routes = APIRouter(include_in_schema=False)
    for path, response in _responses().items():
        routes.add_api_route(path, _answering(response), methods=["GET", "HEAD"])
    return routes


def is_page(path: str) -> bool:
    """Whether browsers get this path without a key."""
    return path in PAGES or path.startswith(FOLDER)


def _answering(response: Response) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return response

    return answer


def _responses() -> dict[str, Response]:
    """Every file once, by path: it is sent as it is whoever asks."""
    found = {
        FOLDER + entry.name: Response(
            entry.read_bytes(), headers=_HEADERS, media_type=_TYPES[Path(entry.name).suffix]
        )
        for entry in files("aphrodite_server").joinpath("pages").iterdir()
    }
    return {**found, **{path: found[FOLDER + name] for path, name in PAGES.items()}}
