"""The flags of `aphrodite run`.

Flags of the engine are made from `EngineConfig`: name, type, default and help stand there. Only
their groups are written here, the server's own flags, and flags of features that are not there yet.
"""

import argparse
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, get_args

from aphrodite_engine.config import EngineConfig
from aphrodite_engine.sampling.fields import Field, fields_of

GROUPS: Final[Mapping[str, Sequence[str]]] = {
    "model": ("revision", "download_dir", "tokenizer", "chat_template", "dtype", "quantization"),
    "memory and batching": (
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "block_size",
        "gpu_memory_utilization",
        "kv_cache_memory",
        "kv_cache_dtype",
        "enable_prefix_caching",
        "scheduling_policy",
    ),
    "execution": (
        "device",
        "threads",
        "enforce_eager",
        "profile_steps",
        "deterministic",
        "seed",
        "tensor_parallel_size",
        "hang_timeout",
    ),
}
"""Where each field of EngineConfig stands in --help; `model` is the argument itself."""

_SHORT: Final = {"tensor_parallel_size": "-tp", "quantization": "-q"}
_SIZES: Final = frozenset({"max_model_len", "kv_cache_memory", "max_num_batched_tokens"})
_UNITS: Final = {"k": 2**10, "m": 2**20, "g": 2**30}


@dataclass(frozen=True)
class Limited:
    """A flag of which only some values work yet."""

    works: tuple[str, ...]
    instead: str
    """What to do."""


LIMITED: Final[Mapping[str, Limited]] = {
    "tensor_parallel_size": Limited(("1",), "leave it out: the model runs on one device"),
}
"""Engine flags with values that are not there yet."""

MISSING: Final[Mapping[str, str]] = {
    "pipeline_parallel_size": "the model runs on one device",
    "data_parallel_size": "start one server per device",
    "cpu_offload_gb": "choose a model that fits",
    "kv_offloading_size": "KV blocks stay on the device",
    "swap_space": "preempted requests are recomputed",
    "enable_lora": "serve a checkpoint with the adapter merged in",
    "lora_modules": "serve a checkpoint with the adapter merged in",
    "max_loras": "serve a checkpoint with the adapter merged in",
    "max_lora_rank": "serve a checkpoint with the adapter merged in",
    "speculative_config": "every token is computed by the model itself",
    "speculative_model": "every token is computed by the model itself",
    "num_speculative_tokens": "every token is computed by the model itself",
    "enable_auto_tool_choice": "tools are not understood yet",
    "tool_call_parser": "tools are not understood yet",
    "reasoning_parser": "reasoning stays in the text",
    "guided_decoding_backend": "constraints are not understood yet",
    "trust_remote_code": "models are built in; none brings code",
    "load_format": "the format is read from the checkpoint",
    "override_generation_config": "give a preset with --sampler-presets and --default-preset",
    "limit_mm_per_prompt": "models read text only",
    "admin_key": "there is nothing to administrate at run time",
    "allow_inline_model_loading": "one server serves one model",
    "launch_kobold_api": "use the OpenAI API",
    "ssl_keyfile": "put a proxy such as Caddy in front",
    "ssl_certfile": "put a proxy such as Caddy in front",
}
"""Flags of features that are not there yet, and what holds meanwhile."""


class Parser(argparse.ArgumentParser):
    """Errors in the words of the whole command."""

    def error(self, message: str) -> NoReturn:
        """One line, exit code 2."""
        self.exit(2, f"aphrodite: error: {message} (see {self.prog} --help)\n")


class _Formatter(argparse.HelpFormatter):
    """Room for long flags in front of their explanations."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)


def run_parser() -> argparse.ArgumentParser:
    """The parser of `aphrodite run`."""
    parser = Parser(
        prog="aphrodite run",
        usage="aphrodite run MODEL [options]",
        description="Serve a model over HTTP, as OpenAI does. Try: aphrodite run demo",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        default=argparse.SUPPRESS,
        help="path of a GGUF file or checkpoint directory, `demo`, or a Hugging Face repository id",
    )
    parser.add_argument("--model", help=argparse.SUPPRESS, default=argparse.SUPPRESS)
    parser.add_argument("--config", metavar="FILE", help="YAML file with flags as keys")
    _add_server(parser)
    fields = {field.name: field for field in fields_of(EngineConfig)}
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            _add_engine(group, fields[name])
    for name in MISSING:
        parser.add_argument(
            _flag(name), nargs="*", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return parser


def refusal(options: argparse.Namespace) -> str | None:
    """Why these flags cannot be followed; None: they can."""
    given = vars(options)
    for name, instead in MISSING.items():
        if name in given:
            return f"{_flag(name)} is not available in this version; {instead}"
    for name, limited in LIMITED.items():
        value = given.get(name)
        if value is not None and str(value) not in limited.works:
            return f"{_flag(name)} {value} is not available in this version; {limited.instead}"
    if "model" not in given:
        return "name a model: a GGUF file, a checkpoint directory, a repository id, or `demo`"
    return None


def engine_config(options: argparse.Namespace) -> EngineConfig:
    """What the flags ask of the engine; a flag not given leaves the default."""
    names = {"model", *(name for names in GROUPS.values() for name in names)}
    given = {k: v for k, v in vars(options).items() if k in names and v is not None}
    if given.get("quantization") == "auto":
        del given["quantization"]
    return EngineConfig(**given)


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument("--host", help="address to listen on (default 0.0.0.0)")
    group.add_argument("--port", type=int, help="port to listen on; 0: any (default 2242)")
    group.add_argument(
        "--api-keys",
        "--api-key",
        nargs="+",
        metavar="KEY",
        help="keys that open the server; none: it is open to all",
    )
    group.add_argument(
        "--served-model-name",
        dest="served_model_names",
        nargs="+",
        metavar="NAME",
        help="names under which the model answers (default: as given)",
    )
    group.add_argument(
        "--strict-fields",
        action=argparse.BooleanOptionalAction,
        help="refuse requests with fields that nobody knows",
    )
    group.add_argument(
        "--generation-config",
        metavar="auto|none|PATH",
        help="sampling defaults: auto, of the model's generation_config.json or GGUF file; none, "
        "also aphrodite: leave them out; or the path of a generation_config.json (default auto)",
    )
    group.add_argument(
        "--sampler-presets",
        metavar="DIR",
        help="folder of YAML files with sampler fields; requests name one as their `preset`",
    )
    group.add_argument("--default-preset", metavar="NAME", help="preset of requests that name none")
    group.add_argument(
        "--forced-preset",
        metavar="NAME",
        help="preset whose fields go before those of requests",
    )
    group.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        help="least weight of what is logged (default info)",
    )


def _add_engine(group: Any, field: Field) -> None:
    names = [_flag(field.name)] + ([_SHORT[field.name]] if field.name in _SHORT else [])
    doc = field.doc if field.doc != EngineConfig.__doc__ else ""
    doc = _uncapitalised(doc.replace("None:", "default:").rstrip("."))
    default = "" if field.default is None else f" (default {_shown(field.default)})"
    options: dict[str, Any] = {"help": (doc + default).replace("%", "%%").strip()}
    if field.type is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["type"] = _reader(field)
        options["metavar"] = "SIZE" if field.name in _SIZES else field.name.split("_")[-1].upper()
    group.add_argument(*names, **options)


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _shown(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _reader(field: Field) -> Callable[[str], Any]:
    if field.name in _SIZES:
        return size
    kinds = [kind for kind in get_args(field.annotation) if kind is not types.NoneType]
    return kinds[0] if kinds else field.type


def size(text: str) -> int | None:
    """A number, with k, m or g for powers of 1024; `auto`: choose for me."""
    plain = text.strip().lower()
    if plain in ("auto", "-1"):
        return None
    unit = _UNITS.get(plain[-1:], 1)
    try:
        return int(float(plain.rstrip("kmg")) * unit)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 4096, 32k or 2g") from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
