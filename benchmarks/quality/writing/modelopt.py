"""What NVIDIA ModelOpt writes."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

from writing.shared import ALL, FEW, GROUP, Writer, calibration, copy_tokenizer, original, tell


def _modelopt(folder: Path, output: Path, config: str, size: tuple[int, int] = ALL) -> None:
    """Tried with NVIDIA ModelOpt 0.47; its integers of 4 bits in groups as ours, not of 128."""
    import modelopt.torch.quantization as quantization
    import torch
    from modelopt.torch.export import export_hf_checkpoint

    tell("nvidia-modelopt", "transformers")
    model = original(folder, "float32")

    @torch.inference_mode()
    def run(model: Any) -> None:
        for piece in calibration(folder, size):
            model(torch.tensor([piece]))

    settings = copy.deepcopy(getattr(quantization, config))
    for rule in settings["quant_cfg"]:
        given = rule.get("cfg") or {}
        for numbers in given if isinstance(given, list) else [given]:
            if numbers.get("num_bits") == 4:
                numbers["block_sizes"][-1] = GROUP
    quantization.quantize(model, settings, run)
    export_hf_checkpoint(model.bfloat16(), export_dir=str(output))
    copy_tokenizer(folder, output)


WRITERS: dict[str, Writer] = {
    "modelopt:fp8": partial(_modelopt, config="FP8_DEFAULT_CFG"),
    "modelopt:nvfp4": partial(_modelopt, config="NVFP4_DEFAULT_CFG"),
    **{
        f"modelopt:{name}": partial(_modelopt, config=config, size=FEW)
        for name, config in (
            ("int4:awq", "INT4_AWQ_CFG"),
            ("w4a8:awq", "W4A8_AWQ_BETA_CFG"),
            ("int8", "INT8_SMOOTHQUANT_CFG"),
            ("int8:weights", "INT8_WEIGHT_ONLY_CFG"),
            ("fp8:channel", "FP8_PER_CHANNEL_PER_TOKEN_CFG"),
            ("fp8:block", "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG"),
            ("mxfp8", "MXFP8_DEFAULT_CFG"),
            ("mxfp4", "MXFP4_DEFAULT_CFG"),
            ("nvfp4:weights", "W4A16_NVFP4_CFG"),
        )
    },
}
