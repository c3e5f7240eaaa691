"""What clients of the Kobold API ask a server besides text: its model, limits, token counts."""

from typing import Any, Final

from fastapi import APIRouter

from aphrodite_server.kobold_schema import KoboldCount, KoboldSoftPrompt
from aphrodite_server.service import Service
from aphrodite_server.translate import encode

API_VERSION: Final = "1.2.4"
"""Of KoboldAI's API: stop sequences and the switch of end-of-text are known since then."""
EXTRA_VERSION: Final = "1.63"
"""Of KoboldCpp's: clients stream from 1.40 on, and send samplers from 1.37 on."""


def router(service: Service) -> APIRouter:
    """The model, its limits and its tokens."""
    routes = APIRouter()
    context = {"value": service.engine.info.max_model_len}
    facts: dict[str, dict[str, Any]] = {
        "/model": {"result": f"aphrodite/{service.names[0]}"},
        "/info/version": {"result": API_VERSION},
        "/config/max_length": context,
        "/config/max_context_length": context,
        "/config/soft_prompts_list": {"values": []},
        "/config/soft_prompt": {"value": ""},
    }
    for path, fact in facts.items():
        _serve(routes, f"/api/v1{path}", fact)
        _serve(routes, f"/api/latest{path}", fact, documented=False)
    _serve(routes, "/api/extra/version", {"result": "KoboldCpp", "version": EXTRA_VERSION})
    _serve(routes, "/api/extra/true_max_context_length", context)
    _serve(routes, "/api/extra/preloadstory", {})

    @routes.put("/api/v1/config/soft_prompt")
    @routes.put("/api/latest/config/soft_prompt", include_in_schema=False)
    async def soft_prompt(body: KoboldSoftPrompt) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Choose none of the soft prompts, since there are none."""
        return {}

    @routes.post("/api/extra/tokencount")
    async def count(body: KoboldCount) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """Tokens of a text."""
        special = body.special is not False
        tokens = await encode(service.engine.tokenizer, body.prompt, add_special=special)
        return {"value": len(tokens), "ids": tokens}

    return routes


def _serve(routes: APIRouter, path: str, fact: dict[str, Any], *, documented: bool = True) -> None:
    async def tell() -> dict[str, Any]:
        return fact

    name = path.rpartition("/")[2]
    routes.add_api_route(path, tell, methods=["GET"], name=name, include_in_schema=documented)
