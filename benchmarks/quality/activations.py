"""How much the rounding of activations changes what a GGUF model predicts, all else being equal.

    PYTHON benchmarks/quality/activations.py TOKENS FILE.gguf

PYTHON is of an environment with transformers, accelerate, gguf; TOKENS is what readers.py wrote.
transformers and gguf-py read and decode the weights, and all is computed in float32. Then inputs
of the products are rounded: to integers of 8 bits, as llama.cpp's CPU kernels round them (256
columns share a scale where the weight's type has blocks of 256, else 32), and to bfloat16.
Prints perplexities, and the KL of predictions from those of the model that rounds nothing.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gguf import GGML_QUANT_SIZES, GGUFReader
from torch import Tensor
from torch.nn import Linear
from transformers import AutoModelForCausalLM

MODULES = {
    **{f"attn_{one}": f"self_attn.{one}_proj" for one in "qkv"},
    "attn_output": "self_attn.o_proj",
    **{f"ffn_{one}": f"mlp.{one}_proj" for one in ("gate", "up", "down")},
}
Rounding = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokens", type=Path, metavar="TOKENS")
    parser.add_argument("file", type=Path, metavar="FILE.gguf")
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(
        str(options.file.parent), gguf_file=options.file.name, dtype=torch.float32
    )
    tokens = torch.tensor([json.loads(options.tokens.read_text())])
    large = _in_large_blocks(options.file)
    plain = _predictions(model, tokens, {})
    linear = [name for name, module in model.named_modules() if isinstance(module, Linear)]
    for told, rounding in (
        ("not rounded", {}),
        (f"8 bits, inputs of {len(large)} matrices", dict.fromkeys(large, _in_256)),
        ("8 bits, all", {name: _in_256 if name in large else _in_32 for name in linear}),
        ("bfloat16, all", dict.fromkeys(linear, _halved)),
    ):
        found = _predictions(model, tokens, rounding)
        surprise = -float(found.gather(1, tokens[0, 1:, None]).mean())
        divergence = float((plain.exp() * (plain - found)).sum(1).mean())
        print(f"{told}: perplexity {math.exp(surprise):.6g}, KL {divergence:.4f}", flush=True)


def _in_large_blocks(file: Path) -> list[str]:
    """The modules whose weights are of types with blocks of 256."""
    found: list[str] = []
    for tensor in GGUFReader(file).tensors:
        parts = tensor.name.split(".")
        if parts[0] == "blk" and GGML_QUANT_SIZES[tensor.tensor_type][0] == 256:
            found.append(f"model.layers.{parts[1]}.{MODULES[parts[2]]}")
    return found


@torch.inference_mode()
def _predictions(model: Any, tokens: Tensor, rounding: dict[str, Rounding]) -> Tensor:
    """Log-probabilities [L - 1, V], inputs of the named modules rounded."""
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, rounded=rounded: (rounded(inputs[0]),)
        )
        for name, rounded in rounding.items()
    ]
    told = model(tokens).logits[0, :-1].double().log_softmax(1)
    for hook in hooks:
        hook.remove()
    return told


def _in_256(inputs: Tensor) -> Tensor:
    """The number of largest magnitude becomes -127 steps."""
    blocks = inputs.unflatten(-1, (-1, 256))
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    step = largest / -127
    steps = (blocks / step).nan_to_num().round().clamp(max=127)
    return (steps * step).flatten(-2)


def _in_32(inputs: Tensor) -> Tensor:
    """The scale is in half precision."""
    blocks = inputs.unflatten(-1, (-1, 32))
    step = blocks.abs().amax(-1, keepdim=True) / 127
    steps = (blocks / step).nan_to_num().round()
    return (steps * step.half().float()).flatten(-2)


def _halved(inputs: Tensor) -> Tensor:
    return inputs.bfloat16().float()


if __name__ == "__main__":
    main()
