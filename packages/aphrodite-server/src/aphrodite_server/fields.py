"""Request fields that no schema declares: which are harmless, which cannot be honoured yet.

Clients send everything they know in every request, so a field of what is not there is accepted at
its off value, and a parameter of what is off at any.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import is_left_out, parameters
from aphrodite_engine.sampling.spelling import agreed
from pydantic.fields import FieldInfo

ALIASES: Final[Mapping[str, str]] = {
    "add_bos_token": "add_special_tokens",
    "max_new_tokens": "max_tokens",
    "sampler_seed": "seed",
    "stopping_strings": "stop",
}
"""Other names of the server's own fields; stages bring their aliases themselves."""

KOBOLD_ALIASES: Final[Mapping[str, str]] = {
    "max_new_tokens": "max_length",
    "max_tokens": "max_length",
    "seed": "sampler_seed",
    "stop": "stop_sequence",
    "stopping_strings": "stop_sequence",
}
"""The same of Kobold's bodies."""

HARMLESS: Final = frozenset(
    {
        "api_server",
        "api_type",
        "cache_salt",
        "dry_early_exit_match_len",
        "dry_max_ngram",
        "dry_max_occurrences",
        "can_abort",
        "disable_input_formatting",
        "disable_output_formatting",
        "grammar_retain_state",
        "include_reasoning",
        "max_tokens_second",
        "metadata",
        "min_keep",
        "modalities",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "quiet",
        "request_id",
        "safety_identifier",
        "sampler_full_determinism",
        "secret_id",
        "service_tier",
        "session_id",
        "store",
        "stream_interval",
        "streaming",
        "truncation_length",
        "user",
        "verbosity",
        "web_search_options",
    }
)
"""Without effect at any value, and reported."""

_PARAMETERS: Final = frozenset({"guided_decoding_backend", "guided_whitespace_pattern"})
"""Of what is off, so nothing is lost: the switches themselves are in `_UNAVAILABLE`."""

_UNAVAILABLE: Final[Mapping[str, tuple[Any, ...]]] = {
    "audio": (),
    "chat_template": (),
    "do_sample": (True,),
    "documents": (),
    "encoder_repetition_penalty": (1,),
    "frmtadsnsp": (False,),
    "frmtrmblln": (False,),
    "frmtrmspch": (False,),
    "frmttriminc": (False,),
    "function_call": ("none", "auto"),
    "functions": (),
    "grammar": (),
    "grammar_string": (),
    "guidance_scale": (1,),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "images": (),
    "json_schema": (),
    "kv_transfer_params": (),
    "negative_prompt": (),
    "num_beams": (1,),
    "penalty_alpha": (0,),
    "prompt_embeds": (),
    "repetition_detection": (),
    "response_format": ({"type": "text"},),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "singleline": (False,),
    "soft_prompt": (),
    "structured_outputs": (),
    "suffix": (),
    "thinking_token_budget": (-1,),
    "token_healing": (False,),
    "tool_choice": ("none", "auto"),
    "tools": (),
    "truncate_prompt_tokens": (),
    "use_authors_note": (False,),
    "use_memory": (False,),
    "use_story": (False,),
    "use_userscripts": (False,),
    "use_world_info": (False,),
}
"""Fields that cannot be honoured yet, with the values (besides nothing) that ask for nothing."""


@dataclass(frozen=True)
class Judgement:
    """What became of the fields that the schema does not declare."""

    unknown: tuple[str, ...]
    """Nobody knows these."""
    harmless: tuple[str, ...]
    """Known, and without effect here."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """All that had no effect."""
        return (*self.harmless, *self.unknown)


def judge(extra: Mapping[str, Any]) -> Judgement:
    """Sort the undeclared fields of a body.

    Raises:
        RequestError: a known field asks for something that cannot be honoured.
    """
    unknown: list[str] = []
    harmless: list[str] = []
    for name, value in extra.items():
        if is_left_out(name, value) or name in parameters() or name in _PARAMETERS:
            continue
        if name in HARMLESS:
            harmless.append(name)
        elif name not in _UNAVAILABLE:
            unknown.append(name)
        elif value not in _UNAVAILABLE[name]:
            raise RequestError(
                f"{name} is not available in this version, found {value!r:.60}; leave it out", name
            )
    return Judgement(tuple(unknown), tuple(harmless))


def folded_body(
    body: Mapping[str, Any],
    declared: Mapping[str, FieldInfo],
    aliases: Mapping[str, str] = ALIASES,
) -> dict[str, Any]:
    """The body with the server's own aliases renamed, and without what is as good as left out.

    Raises:
        RequestError: a field and its alias disagree.
    """
    folded = {
        name: value
        for name, value in body.items()
        if not is_left_out(name, value) or (name in declared and declared[name].is_required())
    }
    for name in dict.fromkeys(aliases.values()):
        names = [name, *(alias for alias, target in aliases.items() if target == name)]
        given = {each: folded.pop(each) for each in names if name in declared and each in folded}
        if given:
            folded[name] = agreed(given)
    return folded


def sent_as(name: str, body: Mapping[str, Any]) -> str:
    """What a body calls one of the server's own fields."""
    known = (*ALIASES.items(), *KOBOLD_ALIASES.items())
    others = (alias for alias, target in known if target == name and alias in body)
    return name if name in body else next(others, name)
