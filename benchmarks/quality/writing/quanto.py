"""What optimum-quanto writes."""

from functools import partial
from pathlib import Path

from writing.shared import Writer, copy_tokenizer, original, tell


def _quanto(folder: Path, output: Path, weights: str) -> None:
    """Tried with optimum-quanto 0.2.7."""
    from optimum.quanto import QuantizedModelForCausalLM

    tell("optimum-quanto", "transformers")
    model = QuantizedModelForCausalLM.quantize(original(folder), weights=weights, exclude="lm_head")
    model.save_pretrained(output)
    copy_tokenizer(folder, output)


WRITERS: dict[str, Writer] = {
    **{f"quanto:{kind}": partial(_quanto, weights=kind) for kind in ("qint8", "qint4", "qfloat8")},
}
