"""What torchao writes, through transformers."""

from functools import partial
from pathlib import Path
from typing import Any

from writing.shared import GROUP, Writer, copy_tokenizer, tell


def _torchao(folder: Path, output: Path, name: str, **settings: Any) -> None:
    """Tried with torchao 0.18; `name` is that of one of its configurations."""
    import torch
    import torchao.prototype.mx_formats as blocks
    import torchao.quantization as plain
    from transformers import AutoModelForCausalLM, TorchAoConfig

    tell("torchao", "transformers")
    config = getattr(blocks if hasattr(blocks, name) else plain, name)
    numbers = {key: getattr(torch, value) for key, value in settings.items()}
    if name == "IntxWeightOnlyConfig":
        numbers["granularity"] = plain.PerGroup(GROUP)
    model = AutoModelForCausalLM.from_pretrained(
        str(folder / "original"),
        dtype=torch.bfloat16,
        quantization_config=TorchAoConfig(config(**numbers)),
    )
    model.save_pretrained(str(output))
    copy_tokenizer(folder, output)


WRITERS: dict[str, Writer] = {
    "torchao:int3": partial(_torchao, name="IntxWeightOnlyConfig", weight_dtype="int3"),
    "torchao:nvfp4": partial(_torchao, name="NVFP4WeightOnlyConfig"),
    "torchao:mxfp8": partial(
        _torchao, name="MXDynamicActivationMXWeightConfig", weight_dtype="float8_e4m3fn"
    ),
}
