"""/v1/samplers: what samplers there are, for user interfaces."""

from typing import Any

import msgspec
from aphrodite_engine.sampling.description import describe
from fastapi import APIRouter

from aphrodite_server.service import Service


def router(service: Service) -> APIRouter:
    """Descriptions of the samplers."""
    routes = APIRouter()

    @routes.get("/v1/samplers")
    async def samplers() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Every sampler in default order, with its fields, and the presets that requests may name.

        Of fields: bounds, defaults and documentation.
        """
        return {**msgspec.to_builtins(describe()), "presets": service.presets.sets}

    return routes
