"""What AutoAWQ writes."""

import json
import shutil
from pathlib import Path

from writing.shared import GROUP, Writer, calibration, copy_tokenizer, tell

SIZE = (2, 64)
"""Pieces, and tokens of each: its search takes half a minute for one block with no more than these,
two with 8 x 256.
"""


def _autoawq(folder: Path, output: Path) -> None:
    """Tried with AutoAWQ 0.2.9, whose transformers (4.51) reads configurations of 4 alone."""
    from awq import AutoAWQForCausalLM

    tell("autoawq", "transformers")
    older = folder / "original-older"
    shutil.copytree(folder / "original", older, dirs_exist_ok=True)
    config = json.loads((older / "config.json").read_text())
    config |= {"rope_theta": config.pop("rope_parameters")["rope_theta"], "torch_dtype": "float32"}
    (older / "config.json").write_text(json.dumps(config))
    model = AutoAWQForCausalLM.from_pretrained(str(older), device_map="cpu", torch_dtype="float32")
    model.quantize(
        quant_config={"zero_point": True, "q_group_size": GROUP, "w_bit": 4, "version": "GEMM"},
        calib_data=calibration(folder, SIZE),
        max_calib_samples=SIZE[0],
        max_calib_seq_len=SIZE[1],
    )
    model.save_quantized(str(output))
    copy_tokenizer(folder, output)


WRITERS: dict[str, Writer] = {
    "autoawq": _autoawq,
}
