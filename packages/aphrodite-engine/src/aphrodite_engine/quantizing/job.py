"""What the user asks for, and how progress is told."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from aphrodite_quant import Options

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint to write."""

    model: str
    """Path of a GGUF file or checkpoint directory, `demo`, or a Hugging Face repository id."""
    format: str
    """Name of a file under `quantizers/`, perhaps with a variant behind a colon."""
    output: str
    """Directory to write."""
    bits: float | None = None
    group_size: int | None = None
    symmetric: bool | None = None
    act_order: bool | None = None
    calibration: str | None = None
    """Text file; None: the text that comes with the engine."""
    samples: int = 32
    """Pieces of that text that are run."""
    length: int = 512
    """Tokens of each."""
    revision: str | None = None
    device: str = "auto"
    overwrite: bool = False
    evaluate: bool = True
    """Measure perplexity before and after."""

    @property
    def format_name(self) -> str:
        return self.format.partition(":")[0].replace("-", "_")

    @property
    def options(self) -> Options:
        """What is asked of the format."""
        return Options(
            variant=self.format.partition(":")[2] or None,
            bits=self.bits,
            group_size=self.group_size,
            symmetric=self.symmetric,
            act_order=self.act_order,
        )

    def identity(self, source: Path, *, calibrated: bool) -> dict[str, object]:
        """What a run must share with one that it goes on with."""
        names = ["format", "bits", "group_size", "symmetric", "act_order"]
        names += ["calibration", "samples", "length"] if calibrated else []
        stated: dict[str, object] = {name: getattr(self, name) for name in names}
        return {"source": str(source.resolve())} | stated
