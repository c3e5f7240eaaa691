"""What the sampler would do next, told in JSON: what is asked, and how it is answered."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from aphrodite_engine.async_engine import AsyncEngine
from aphrodite_engine.errors import InternalError, RequestError
from aphrodite_engine.sampling.explanation import Explanation, Spread
from aphrodite_engine.text.tokenizer import Tokenizer

from aphrodite_server.generation import Generation
from aphrodite_server.replies import token_text, usage
from aphrodite_server.schema import ExplainRequest
from aphrodite_server.translate import Prompt, chat_tokens, completion_prompts


async def explained_prompt(engine: AsyncEngine, body: ExplainRequest) -> Prompt:
    """RequestError: not one prompt, or an empty one."""
    if body.messages is not None:
        if body.prompt is not None:
            raise RequestError("prompt and messages exclude each other; send one", "messages")
        return Prompt(await chat_tokens(engine, body))
    if body.prompt is None or len(body.prompt) != 1:
        found = 0 if body.prompt is None else len(body.prompt)
        raise RequestError(f"send one prompt, or messages; found {found} prompts", "prompt")
    return (await completion_prompts(engine, body))[0]


async def explained(generation: Generation, model: str, tokenizer: Tokenizer) -> bytes:
    """The answer: what the generation tells of its one token. InternalError: it has none."""
    found = [one async for piece in generation.pieces() for one in piece.explanations]
    if not found:
        raise InternalError("the request ended before its token was drawn")
    answer = {
        "object": "sampler.explanation",
        "created": int(time.time()),
        "model": model,
        **_told(found[0], tokenizer),
        "usage": usage(generation),
    }
    return msgspec.json.encode(answer)


def _told(explanation: Explanation, tokenizer: Tokenizer) -> dict[str, Any]:
    """An explanation, with the texts of its tokens."""

    def named(token: int, **numbers: float) -> dict[str, Any]:
        return {"id": token, "text": token_text(tokenizer, token), **numbers}

    return {
        "greedy": explanation.greedy,
        "token": named(explanation.token),
        "samplers": [
            {
                "name": effect.stage,
                "fields": effect.fields,
                **_spreads(before=effect.before, after=effect.after),
                "tokens": [
                    named(one.token, before=one.before, after=one.after) for one in effect.top
                ],
            }
            for effect in explanation.stages
        ],
        "final": {
            "candidates": explanation.final.candidates,
            "entropy": explanation.final.entropy,
            "tokens": [
                named(token, probability=probability) for token, probability in explanation.top
            ],
        },
    }


def _spreads(**spreads: Spread) -> Mapping[str, Mapping[str, float]]:
    return {
        "candidates": {when: spread.candidates for when, spread in spreads.items()},
        "entropy": {when: spread.entropy for when, spread in spreads.items()},
    }
