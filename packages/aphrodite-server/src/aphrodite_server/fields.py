"""Request fields that no schema declares: which are harmless, which cannot be honoured yet.

Clients send every sampler in every request, so a field of a sampler that is not there yet is
accepted at its off value, and a parameter of a switched-off sampler at any. When a stage declares
a name, that name leaves these tables by itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import stage_fields
from aphrodite_engine.sampling.priority import ORDER_ALIASES, ORDER_FIELDS
from aphrodite_engine.sampling.spelling import agreed, is_empty

ALIASES: Final[Mapping[str, str]] = {
    "add_bos_token": "add_special_tokens",
    "max_new_tokens": "max_tokens",
    "sampler_seed": "seed",
    "stopping_strings": "stop",
}
"""Other names of the server's own fields; stages bring their aliases themselves."""

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

_PARAMETERS: Final = frozenset(
    {
        "adaptive_decay",
        "guidance_scale",
        "guided_decoding_backend",
        "guided_whitespace_pattern",
        "mirostat_eta",
        "mirostat_tau",
    }
)
"""Of samplers that are off, so nothing is lost: the switch itself is in `_UNAVAILABLE`."""

_UNAVAILABLE: Final[Mapping[str, tuple[Any, ...]]] = {
    # Samplers.
    "adaptive_target": (),  # negative: off
    "frequency_penalty": (0,),
    "logit_bias": (),
    "min_p": (0,),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "presence_penalty": (0,),
    "rep_pen": (1,),
    "repetition_penalty": (1,),
    "token_healing": (False,),
    "top_k": (0, -1),
    "top_p": (1,),
    # Constraints, tools and the rest of the protocol.
    "audio": (),
    "chat_template": (),
    "documents": (),
    "frmtadsnsp": (False,),
    "frmtrmblln": (False,),
    "frmtrmspch": (False,),
    "frmttriminc": (False,),
    "function_call": ("none", "auto"),
    "functions": (),
    "grammar": (),
    "grammar_string": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "images": (),
    "json_schema": (),
    "kv_transfer_params": (),
    "negative_prompt": (),
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


@cache
def stage_names() -> Mapping[str, str]:
    """Wire names that the engine's sampler answers to; what each is an alias of, or itself."""
    names = {
        name: declared.name
        for declared in stage_fields()
        for name in (declared.name, *declared.aliases)
    }
    for field in ORDER_FIELDS:
        for name in (field.name, *ORDER_ALIASES.get(field.name, ())):
            names[name] = field.name
    return names


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
        if value is None or name in stage_names() or name in _PARAMETERS:
            continue
        if name in HARMLESS:
            harmless.append(name)
        elif name not in _UNAVAILABLE:
            unknown.append(name)
        elif not _is_off(name, value):
            raise RequestError(
                f"{name} is not available in this version, found {value!r:.60}; leave it out", name
            )
    return Judgement(tuple(unknown), tuple(harmless))


def fold_aliases(
    body: Mapping[str, Any], declared: Iterable[str], aliases: Mapping[str, str] = ALIASES
) -> dict[str, Any]:
    """The body with the server's own aliases renamed.

    Raises:
        RequestError: a field and its alias disagree.
    """
    folded = dict(body)
    for name in dict.fromkeys(aliases.values()):
        if name not in declared:
            continue
        others = [alias for alias, target in aliases.items() if target == name and alias in body]
        given = {each: body[each] for each in (name, *others) if not is_empty(body.get(each))}
        for alias in others:
            folded.setdefault(name, folded.pop(alias))
        if given:
            folded[name] = agreed(given)
    return folded


def _is_off(name: str, value: object) -> bool:
    if name == "adaptive_target":
        return isinstance(value, int | float) and value < 0
    return is_empty(value) or value in _UNAVAILABLE[name]
