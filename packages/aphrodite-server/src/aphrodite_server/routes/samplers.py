"""/v1/samplers: what samplers there are, and what they do to a prompt's next token."""

from typing import Any

import msgspec
from aphrodite_engine.sampling.description import describe
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from aphrodite_server.explanations import explained, explained_prompt
from aphrodite_server.generation import Order
from aphrodite_server.schema import ExplainRequest
from aphrodite_server.service import Service, answer_whole, new_id
from aphrodite_server.translate import explain_params


def router(service: Service) -> APIRouter:
    """Descriptions of the samplers, and their effects."""
    routes = APIRouter()
    engine = service.engine

    @routes.get("/v1/samplers")
    async def samplers() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Every sampler in default order, with its fields, and the presets that requests may name.

        Of fields: bounds, defaults and documentation. `model_defaults`: those of the model, where
        requests and presets are silent.
        """
        presets = service.presets
        told = {"presets": presets.sets, "model_defaults": presets.model}
        return {**msgspec.to_builtins(describe()), **told}

    @routes.post("/v1/samplers/explain", response_model=None)
    async def explain(request: Request, body: ExplainRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        """How each sampler that acts changes the candidates for a prompt's next token.

        In the order in which they act; at last the distribution from which the token is drawn.
        """
        headers = service.check(body, body.model)
        order = Order(
            id=new_id("explain"),
            params=explain_params(body, service.presets),
            prompts=[await explained_prompt(engine, body)],
            priority=service.priority(body),
        )
        generation = service.begin(request, order)
        content = explained(generation, service.names[0], engine.tokenizer)
        return await answer_whole(request, generation, content, headers)

    return routes
