"""What AMD Quark writes."""

from functools import partial
from pathlib import Path

from writing.shared import (
    ALL,
    FEW,
    Writer,
    calibration,
    copy_tokenizer,
    halve_plain,
    original,
    tell,
)

SCANT = (2, 64)
"""For AWQ's search, which takes two minutes for one block on two cores with 8 pieces of 256."""


def _quark(
    folder: Path, output: Path, scheme: str, algorithm: str | None = None,
    size: tuple[int, int] = ALL,
) -> None:  # fmt: skip
    """Tried with AMD Quark 0.13."""
    import torch
    from quark.torch import LLMTemplate, ModelQuantizer, export_safetensors

    tell("amd-quark", "transformers")
    model = original(folder, "float32")
    config = LLMTemplate.get("llama").get_config(
        scheme=scheme, algorithm=algorithm, exclude_layers=["lm_head"]
    )
    quantizer = ModelQuantizer(config)
    pieces = [torch.tensor([one]) for one in calibration(folder, size)]
    model = quantizer.freeze(quantizer.quantize_model(model, pieces))
    export_safetensors(model, str(output))
    halve_plain(output)
    copy_tokenizer(folder, output)


WRITERS: dict[str, Writer] = {
    **{f"quark:{scheme}": partial(_quark, scheme=scheme) for scheme in ("fp8", "int8", "mxfp4")},
    **{
        f"quark:{name}": partial(_quark, scheme=scheme, algorithm=algorithm, size=FEW)
        for name, scheme, algorithm in (
            ("uint4", "uint4_wo_64", None),
            ("uint4:gptq", "uint4_wo_64", "gptq"),
            ("int4", "int4_wo_64", None),
            ("int4:channel", "int4_wo_per_channel", None),
            ("fp8:channel", "ptpc_fp8", None),
            ("mxfp6:e3m2", "mxfp6_e3m2", None),
            ("mxfp6:e2m3", "mxfp6_e2m3", None),
            ("nvfp4", "nvfp4", None),
        )
    },
    "quark:uint4:awq": partial(_quark, scheme="uint4_wo_64", algorithm="awq", size=SCANT),
}
