"""/v1/completions."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from aphrodite_server.generation import Order
from aphrodite_server.replies import CompletionReply
from aphrodite_server.schema import CompletionRequest
from aphrodite_server.service import Service, new_id
from aphrodite_server.translate import completion_params, completion_prompts


def router(service: Service) -> APIRouter:
    """Text that continues prompts."""
    routes = APIRouter()
    engine = service.engine

    @routes.post("/v1/completions", response_model=None)
    async def complete(request: Request, body: CompletionRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Continue prompts."""
        params = completion_params(body, service.presets)
        order = Order(
            id=new_id("cmpl"),
            prompts=await completion_prompts(engine, body),
            params=params,
            echo=bool(body.echo),
            prompt_scores=body.given.get("prompt_logprobs") is not None,
            priority=service.priority(body),
        )
        reply = CompletionReply(order.id, service.names[0], engine.tokenizer, params.logprobs)
        return await service.answer(request, body, order, reply)

    return routes
