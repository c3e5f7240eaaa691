"""A tokenizer as the files of a Hugging Face directory.

So a model that came as one GGUF file has a tokenizer beside it when it becomes a directory.
"""

import json
from typing import Any

import tokenizers
from tokenizers import decoders, processors

from aphrodite_engine.text.tokenizer import Tokenizer
from aphrodite_engine.text.vocabulary import SPACE, byte_level


def tokenizer_files(tokenizer: Tokenizer, template: str | None) -> dict[str, dict[str, Any]]:
    """By name: tokenizer.json, tokenizer_config.json with the chat template, generation_config.json
    with the tokens that end a generation.
    """
    special = tokenizer.special
    roles = {
        "bos_token": special.bos,
        "eos_token": special.eos,
        "unk_token": special.unknown,
        "pad_token": special.padding,
    }
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {
        role: tokenizer.vocabulary.pieces[token]
        for role, token in roles.items()
        if token is not None
    }
    if template is not None:
        config["chat_template"] = template
    generation: dict[str, Any] = {"eos_token_id": sorted(special.ends)}
    if special.bos is not None:
        generation["bos_token_id"] = special.bos
    return {
        "tokenizer.json": _encoder(tokenizer),
        "tokenizer_config.json": config,
        "generation_config.json": generation,
    }


def _encoder(tokenizer: Tokenizer) -> dict[str, Any]:
    """The encoder with what it lacks to stand alone: a decoder, and what surrounds a text."""
    encoder = tokenizers.Tokenizer.from_str(tokenizer.encoder_json())
    pieces, special = tokenizer.vocabulary.pieces, tokenizer.special
    if tokenizer.vocabulary.spelling is byte_level:
        encoder.decoder = decoders.ByteLevel()
    else:
        steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        steps += [decoders.Strip(" ", 1, 0)] if tokenizer.leading_space else []
        encoder.decoder = decoders.Sequence(steps)
    around = [*special.before, *special.after]
    if around:
        encoder.post_processor = processors.TemplateProcessing(
            single=[
                *(pieces[t] for t in special.before),
                "$A",
                *(pieces[t] for t in special.after),
            ],
            special_tokens=[(pieces[token], token) for token in around],
        )
    return json.loads(encoder.to_str())
