"""/v1/tokenize and /v1/detokenize, and the same without /v1."""

from typing import Any

from aphrodite_engine.errors import RequestError
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.responses import Response

from aphrodite_server.replies import token_text
from aphrodite_server.schema import DetokenizeRequest, TokenizeRequest
from aphrodite_server.service import Service
from aphrodite_server.translate import chat_tokens, decode, encode


def router(service: Service) -> APIRouter:
    """Between text and tokens."""
    routes = APIRouter()
    engine = service.engine

    @routes.post("/v1/tokenize", response_model=None)
    @routes.post("/tokenize", response_model=None, include_in_schema=False)
    async def tokenize(body: TokenizeRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Tokens of a text or of a conversation."""
        headers = service.check(body, body.model)
        if (body.prompt is None) == (body.messages is None):
            raise RequestError("send either prompt or messages", "prompt")
        if body.prompt is None:
            tokens = await chat_tokens(engine, body)
        else:
            special = body.add_special_tokens is not False
            tokens = await encode(engine.tokenizer, body.prompt, add_special=special)
        answer: dict[str, Any] = {
            "count": len(tokens),
            "max_model_len": engine.info.max_model_len,
            "tokens": tokens,
        }
        if body.return_token_strs:
            answer["token_strs"] = [token_text(engine.tokenizer, token) for token in tokens]
        return JSONResponse(answer, headers=headers)

    @routes.post("/v1/detokenize", response_model=None)
    @routes.post("/detokenize", response_model=None, include_in_schema=False)
    async def detokenize(body: DetokenizeRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        """The text of tokens, control tokens included."""
        headers = service.check(body, body.model)
        text = await decode(engine.tokenizer, body.tokens)
        return JSONResponse({"prompt": text}, headers=headers)

    return routes
