"""What GPTQModel writes."""

from functools import partial
from pathlib import Path
from typing import Any

from writing.shared import GROUP, Writer, calibration, tell


def _gptqmodel(folder: Path, output: Path, **config: Any) -> None:
    """Tried with GPTQModel 7.6."""
    from gptqmodel import GPTQModel, QuantizeConfig

    tell("gptqmodel", "transformers")
    model = GPTQModel.load(
        str(folder / "original"), QuantizeConfig(group_size=GROUP, device="cpu", **config)
    )
    pieces = [{"input_ids": one, "attention_mask": [1] * len(one)} for one in calibration(folder)]
    model.quantize(pieces, batch_size=4)
    model.save(str(output))


WRITERS: dict[str, Writer] = {
    "gptqmodel:4": partial(_gptqmodel, bits=4, desc_act=True),
    "gptqmodel:4:asym": partial(_gptqmodel, bits=4, sym=False, desc_act=False),
    "gptqmodel:8": partial(_gptqmodel, bits=8, desc_act=False),
    "gptqmodel:3": partial(_gptqmodel, bits=3, desc_act=True),
}
