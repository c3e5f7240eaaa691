"""What the user asks of the engine, and what it came to be.

`EngineConfig` is what was asked: every field has a default, None means "choose for me".
`resolve` (in loading/) turns it, the model's own configuration and the machine into a
`ResolvedConfig`, once, by a pure function; nothing changes afterwards.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from aphrodite_engine.errors import ConfigError

DTYPE_NAMES: Final[tuple[str, ...]] = ("float32", "bfloat16", "float16")
KV_DTYPE_NAMES: Final[tuple[str, ...]] = (
    *DTYPE_NAMES,
    "bf16",
    "fp8",
    "fp8_e4m3",
    "fp8_e5m2",
    "int8",
    "int4",
)
POLICIES: Final[tuple[str, ...]] = ("fcfs", "priority")
_MOST: Final = {"block_size": 256, "threads": 1024}


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asks for."""

    model: str
    """Path of a GGUF file or checkpoint directory, `demo`, or a Hugging Face repository id."""
    revision: str | None = None
    """Branch, tag or commit of the repository."""
    download_dir: str | None = None
    """Where downloads are kept; None: the hub library's cache."""
    tokenizer: str | None = None
    """Directory or repository of another tokenizer; None: the model's own."""
    chat_template: str | None = None
    """Path of a Jinja file, or the template itself; None: the model's own."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    dtype: str = "auto"
    """Activations: `auto`, `float32`, `bfloat16` or `float16`."""
    quantization: str | None = None
    """Format of the checkpoint; None: what it says of itself. On a plain one `fp8`, `int8`,
    `mxfp8`, `fp6`, `int4`, `nf4`, `mxfp4` or `nvfp4`: projections are quantised while they are
    loaded, embedding and head stay as they are."""
    kv_cache_dtype: str = "auto"
    """`auto`, `float32`, `float16`, `bfloat16` (or `bf16`), `fp8_e4m3` (or `fp8`), `fp8_e5m2`,
    `int8` or `int4`. Those of one byte hold nearly twice as many tokens as those of two, `int4`
    nearly four times. `auto` is what the checkpoint was made for, else 16 bits."""
    max_model_len: int | None = None
    """Longest prompt + completion; None: the model's own, as far as memory allows."""
    max_num_seqs: int | None = None
    """Requests that run at once; None: 32 on a CPU, 256 on a GPU, 512 where 64 GiB are free."""
    max_num_batched_tokens: int | None = None
    """Tokens of one step; None: 512 on a CPU, 8192 on a GPU."""
    block_size: int | None = None
    """Positions per KV block; None: 16 on a CPU, 64 on a GPU."""
    gpu_memory_utilization: float = 0.9
    """Upper bound of the fraction of *free* device memory that weights and KV may take."""
    kv_cache_memory: int | None = None
    """Bytes for the KV cache; None: what context x concurrency needs, bounded by free memory."""
    enable_prefix_caching: bool = True
    """Reuse the KV blocks of prompts that begin alike."""
    scheduling_policy: str = "fcfs"
    """`fcfs` or `priority` (lower first)."""
    enforce_eager: bool = False
    """Do not capture programs."""
    profile_steps: bool = False
    """Tell now and then where the host's time of decoding steps goes."""
    deterministic: bool = False
    """Row-invariant kernels only: a seeded text is bit-identical in any company."""
    seed: int | None = None
    """Fixes the draws of requests that bring no seed of their own; None: they differ each time."""
    threads: int | None = None
    """CPU threads; None: physical cores."""
    tensor_parallel_size: int = 1
    """Devices that share one model."""
    hang_timeout: int = 300
    """Seconds without a sign of life after which an engine process is replaced; no step may take
    longer."""


class ResolvedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What runs: every choice made."""

    model: str
    """Name for people: the argument as given."""
    path: str
    """Local file or directory."""
    device: str
    dtype: str
    kv_cache_dtype: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    """KV blocks, the null block 0 included."""
    enable_prefix_caching: bool
    scheduling_policy: str
    enforce_eager: bool
    deterministic: bool
    seed: int | None
    threads: int


def check_config(config: EngineConfig) -> None:
    """Judge what needs neither a model nor a machine.

    Raises:
        ConfigError: a value is out of range, or is not available.
    """
    check_choice("dtype", config.dtype, ("auto", *DTYPE_NAMES))
    check_choice("kv_cache_dtype", config.kv_cache_dtype, ("auto", *KV_DTYPE_NAMES))
    check_choice("scheduling_policy", config.scheduling_policy, POLICIES)
    for name in (
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "kv_cache_memory",
        "threads",
        "block_size",
    ):
        _check_count(name, getattr(config, name))
    if not 0 < config.gpu_memory_utilization <= 1:
        raise ConfigError(
            "gpu_memory_utilization must be above 0 and at most 1, "
            f"found {config.gpu_memory_utilization}"
        )
    if config.tensor_parallel_size != 1:
        raise ConfigError(
            "several devices for one model are not supported yet: tensor_parallel_size must be 1, "
            f"found {config.tensor_parallel_size}"
        )


def check_choice(name: str, value: str, known: Collection[str]) -> None:
    """ConfigError: the value is none of those known."""
    if value not in known:
        raise ConfigError(f"{name} is {value!r}, which is not one of {', '.join(known)}")


def _check_count(name: str, value: int | None) -> None:
    if value is None:
        return
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, found {value}")
    if value > _MOST.get(name, value):
        raise ConfigError(f"{name} must be at most {_MOST[name]}, found {value}")
