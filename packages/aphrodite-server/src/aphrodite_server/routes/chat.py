"""/v1/chat/completions."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from aphrodite_server.generation import Order
from aphrodite_server.replies import ChatReply
from aphrodite_server.schema import ChatRequest
from aphrodite_server.service import Service, new_id
from aphrodite_server.translate import Prompt, chat_params, chat_tokens


def router(service: Service) -> APIRouter:
    """The next turn of conversations."""
    routes = APIRouter()
    engine = service.engine

    @routes.post("/v1/chat/completions", response_model=None)
    async def chat(request: Request, body: ChatRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Answer a conversation."""
        params = chat_params(body, service.presets)
        order = Order(
            id=new_id("chatcmpl"),
            prompts=[Prompt(await chat_tokens(engine, body))],
            params=params,
            prompt_scores=body.given.get("prompt_logprobs") is not None,
            priority=service.priority(body),
        )
        reply = ChatReply(order.id, service.names[0], engine.tokenizer, params.logprobs)
        return await service.answer(request, body, order, reply)

    return routes
