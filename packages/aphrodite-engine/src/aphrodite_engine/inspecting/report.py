"""What an inspection finds, as plain data."""

import msgspec


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """Weights that are stored alike and stand at the same place of every layer."""

    name: str
    """Their path; `*` in the place of numbers."""
    count: int
    shape: list[int]
    """[N, K] of a matrix; else as it is stored."""
    stored: str
    """Type of the largest tensor of each."""
    nbytes: int
    """Of all of them in the file."""
    bits: float
    """Of a weight, scales included."""
    layout: str | None = None
    """None: no matrix."""
    kernel: str | None = None
    """The backend, and what it makes of the layout; `reference`: it is dequantised."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device, and what they are enough for."""

    free: int
    weights: int
    activations: int
    kv_cache: int
    kv_per_token: int
    """At most: of layers with a window, less for what is behind it."""
    kv_cache_dtype: str
    context: int
    """Longest prompt + completion."""
    kv_tokens: int
    """Of all requests."""


class ModuleCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A product of the backend beside that of the reference."""

    module: str
    error: float
    """Root mean square of the difference over that of what a product is typically."""
    problem: str | None = None


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint."""

    path: str
    container: str
    format: str
    architecture: str | None
    """As the checkpoint says."""
    model_type: str | None
    """The model that runs it; None: there is none."""
    tensors: int
    weights: int
    """Numbers in all."""
    nbytes: int
    bits: float
    """Of a weight, on average."""
    backend: str
    kinds: list[Kind]
    memory: Memory | None = None
    notes: list[str] = []
    """Why something is not known, or will not work."""
    checks: list[ModuleCheck] | None = None
    """None: not asked for."""
    problems: list[str] = []
    """What is wrong with the checkpoint, or with our kernels."""
