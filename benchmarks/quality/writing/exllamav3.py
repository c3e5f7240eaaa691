"""What exllamav3 writes."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from writing.shared import LENGTH, PIECES, Writer, calibration, tell


def _exllamav3(folder: Path, output: Path, bits: float, codebook: str = "mul1") -> None:
    """Tried with exllamav3 1.6.5, whose search for paths needs a GPU."""
    import torch
    from safetensors.torch import save_file

    tell("exllamav3")
    pieces = folder / "calibration.safetensors"
    save_file({"input_ids": torch.tensor(calibration(folder), dtype=torch.int32)}, pieces)
    places = ["-i", folder / "original", "-o", output, "-w", folder / f"{output.name}-work"]
    rates = ["-b", bits, "-hb", 6, "-cb", codebook, "-cd", pieces, "-cr", PIECES, "-cc", LENGTH]
    program = [sys.executable, "-m", "exllamav3.conversion.convert_model"]
    subprocess.run([*program, *(str(one) for one in (*places, *rates))], check=True)


WRITERS: dict[str, Writer] = {
    **{f"exllamav3:{bits}": partial(_exllamav3, bits=bits) for bits in (2, 3, 4, 1.5, 2.5, 3.5)},
    **{f"exllamav3:4:{b}": partial(_exllamav3, bits=4, codebook=b) for b in ("mcg", "3inst")},
}
