"""/v1/models: what is served."""

import time
from typing import Any

from fastapi import APIRouter

from aphrodite_server.errors import ApiError
from aphrodite_server.service import Service


def router(service: Service) -> APIRouter:
    """The served names."""
    routes = APIRouter()
    started = int(time.time())

    def card(name: str) -> dict[str, Any]:
        info = service.engine.info
        return {
            "id": name,
            "object": "model",
            "created": started,
            "owned_by": "aphrodite",
            "root": info.name,
            "parent": None,
            "max_model_len": info.max_model_len,
            "permission": [],
        }

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """All names of the model."""
        return {"object": "list", "data": [card(name) for name in service.names]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """One name of the model."""
        if name not in service.names:
            message = f"The model `{name}` does not exist"
            raise ApiError(404, message, param="model", code="model_not_found")
        return card(name)

    return routes
