"""/health, /version and /metrics: for those who run the server."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from aphrodite_server import __version__
from aphrodite_server.service import Service


def router(service: Service) -> APIRouter:
    """The state of the server."""
    routes = APIRouter()

    @routes.head("/health", response_model=None, include_in_schema=False)
    @routes.get("/health", response_model=None)
    async def health() -> Response:  # pyright: ignore[reportUnusedFunction]
        """200 while the engine answers, else 503."""
        service.check_state()
        return Response()

    @routes.get("/version")
    async def version() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """The server's version."""
        return {"version": __version__}

    @routes.get("/metrics", response_model=None)
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Counts, gauges and histograms, for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes
