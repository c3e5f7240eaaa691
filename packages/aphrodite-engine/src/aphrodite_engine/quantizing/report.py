"""What came of a quantisation."""

import msgspec


class ModuleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One projection."""

    module: str
    shape: tuple[int, int]
    error: float
    """|W' - W| / |W|, Frobenius norms."""
    output_error: float | None
    """|x W'ᵀ - x Wᵀ| / |x Wᵀ| over the calibration text; None: it was not run."""


class Perplexity(msgspec.Struct, frozen=True, kw_only=True):
    """Of held-out text."""

    before: float
    after: float
    tokens: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A finished quantisation."""

    model: str
    format: str
    output: str
    modules: tuple[ModuleRecord, ...]
    bytes_before: int
    """Of all weights as they are stored."""
    bytes_after: int
    seconds: float
    resumed: int
    """Blocks that an earlier run had finished."""
    perplexity: Perplexity | None

    @property
    def mean_error(self) -> float:
        return sum(record.error for record in self.modules) / len(self.modules)
