"""What the user asks of the engine, and what it came to be.

`EngineConfig` is what was asked: every field has a default, None means "choose for me".
`resolve` (in loading/) turns it, the model's own configuration and the machine into a
`ResolvedConfig`, once, by a pure function; nothing changes afterwards.
"""

import msgspec


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
    """Format of the checkpoint; None: what it says of itself."""
    kv_cache_dtype: str = "auto"
    """`auto`, `float32`, `float16` or `bfloat16`."""
    max_model_len: int | None = None
    """Longest prompt + completion; None: the model's own, as far as memory allows."""
    max_num_seqs: int | None = None
    """Requests that run at once; None: 32 on a CPU, 256 on a GPU."""
    max_num_batched_tokens: int | None = None
    """Tokens of one step; None: 512 on a CPU, 8192 on a GPU."""
    block_size: int = 16
    """Positions per KV block."""
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
