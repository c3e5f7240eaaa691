"""What llm-compressor writes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from writing.shared import (
    ALL,
    FEW,
    GROUP,
    LENGTH,
    Writer,
    calibration,
    copy_tokenizer,
    halve_plain,
    original,
    tell,
    tokenizer,
)


def _llm_compressor(
    folder: Path, output: Path, recipe: Callable[[], Any], size: tuple[int, int] = ALL
) -> None:
    """Tried with llm-compressor 0.14."""
    from datasets import Dataset
    from llmcompressor import oneshot

    tell("llmcompressor", "compressed-tensors", "transformers")
    pieces = calibration(folder, size)
    masks = [[1] * len(one) for one in pieces]
    model = original(folder, "float32")
    oneshot(
        model=model,
        processor=tokenizer(folder),
        dataset=Dataset.from_dict({"input_ids": pieces, "attention_mask": masks}),
        recipe=recipe(),
        max_seq_length=LENGTH,
        num_calibration_samples=len(pieces),
    )
    model.save_pretrained(str(output), save_compressed=True)
    halve_plain(output)
    copy_tokenizer(folder, output)


def _smoothed_integers() -> Any:
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    return [SmoothQuantModifier(smoothing_strength=0.8), _corrected("W8A8")]


def _corrected(scheme: str, **weights: Any) -> Any:
    """GPTQ; `weights` is what differs from the scheme."""
    from llmcompressor.modifiers.gptq import GPTQModifier

    return GPTQModifier(config_groups=_group(scheme, weights), ignore=["lm_head"])


def _scaled(scheme: str, **weights: Any) -> Any:
    """AWQ's search for scales of features, then rounding to the nearest.

    Memory is not pinned: without an accelerator, for which that would be, it cannot be.
    """
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    IntermediatesCache.pin_memory = lambda cache, index, names=None: None
    groups = _group(scheme, weights)
    return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=["lm_head"])]


def _group(scheme: str, weights: dict[str, Any]) -> dict[str, Any]:
    """A scheme by name for all linear layers, with what differs in its weights."""
    from compressed_tensors.quantization import preset_name_to_scheme

    found = preset_name_to_scheme(scheme, ["Linear"])
    found.weights = found.weights.model_copy(update=weights)
    return {"group_0": found}


def _observed(scheme: str) -> Any:
    from llmcompressor.modifiers.quantization import QuantizationModifier

    return QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])


WRITERS: dict[str, Writer] = {
    "llm-compressor:w8a8": partial(_llm_compressor, recipe=_smoothed_integers),
    "llm-compressor:nvfp4": partial(_llm_compressor, recipe=partial(_observed, "NVFP4")),
    "llm-compressor:fp8": partial(_llm_compressor, recipe=partial(_observed, "FP8"), size=FEW),
    **{
        f"llm-compressor:{name}": partial(
            _llm_compressor, recipe=partial(one, scheme, group_size=GROUP), size=FEW
        )
        for name, one, scheme in (
            ("w4a16:gptq", _corrected, "W4A16"),
            ("w4a16:gptq:asym", _corrected, "W4A16_ASYM"),
            ("w4a16:awq", _scaled, "W4A16_ASYM"),
        )
    },
}
