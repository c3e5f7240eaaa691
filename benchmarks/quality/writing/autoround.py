"""What auto-round writes."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from writing.shared import (
    ALL,
    FEW,
    GROUP,
    Writer,
    calibration,
    halve_plain,
    original,
    tell,
    tokenizer,
)


def _auto_round(
    folder: Path,
    output: Path,
    forms: str = "auto_round",
    size: tuple[int, int] = ALL,
    **settings: Any,
) -> None:
    """Tried with auto-round 0.16; without `iters`, roundings are not searched for.

    Of several forms, each is written in a folder of its own: DIR/NAME-FORM.
    """
    import torch
    from auto_round import AutoRound

    tell("auto-round", "transformers")
    pieces = [{"input_ids": torch.tensor([one])} for one in calibration(folder, size)]
    rounding = AutoRound(
        original(folder, "float32"),
        tokenizer(folder),
        nsamples=len(pieces),
        seqlen=size[1],
        dataset=pieces,
        device_map="cpu",
        amp=False,
        **{"iters": 0, **settings},
    )
    work = output.with_name(f"{output.name}-work")
    _, folders = rounding.quantize_and_save(str(work), format=forms)
    written = folders if isinstance(folders, list) else [folders]
    for form, inside in zip(forms.split(","), written, strict=True):
        alone = len(written) == 1
        target = output if alone else output.with_name(f"{output.name}-{form}")
        Path(inside).rename(target)
        halve_plain(target)
    shutil.rmtree(work)


WRITERS: dict[str, Writer] = {
    "auto-round:own": partial(_auto_round, bits=4, group_size=GROUP, sym=True),
    "auto-round:search": partial(
        _auto_round,
        forms="auto_round,auto_gptq,auto_awq,llm_compressor",
        size=FEW,
        bits=4,
        group_size=GROUP,
        sym=True,
        iters=15,
        batch_size=2,
    ),
    "auto-round:asym": partial(
        _auto_round, forms="auto_gptq,llm_compressor", bits=4, group_size=GROUP, sym=False, size=FEW
    ),
    "auto-round:q4_k_m": partial(_auto_round, forms="gguf:q4_k_m"),
    **{
        f"auto-round:{scheme.lower()}": partial(_auto_round, scheme=scheme, forms=forms, size=FEW)
        for scheme, forms in (
            ("MXFP4", "auto_round,llm_compressor"),
            ("MXFP8", "auto_round,llm_compressor"),
            ("NVFP4", "auto_round,llm_compressor"),
            ("FP8_STATIC", "auto_round,llm_compressor"),
            ("FP8_BLOCK", "fp8"),
            ("INT8", "llm_compressor"),
        )
    },
}
