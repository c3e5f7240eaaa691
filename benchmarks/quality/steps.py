"""What Q5_0 and Q5_1 lose of the demo's weights, which lie on the sixteen steps of Q4_1, and of
the same weights with noise that hides the steps: relative errors of a layer's projections.

    python3 -m uv run python benchmarks/quality/steps.py [--layer N]
"""

import argparse

import torch
from aphrodite_engine.loading.model import open_model, weights_of
from aphrodite_engine.loading.source import find_model_path
from aphrodite_kernels.layouts import GgmlType
from aphrodite_quant.ggml.encode import encode

_BLOCK, _STEPS = 32, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", type=int, default=1)
    options = parser.parse_args()
    source = open_model(find_model_path("demo", None, None))
    weights = weights_of(source, source.checkpoint.store)
    generator = torch.Generator().manual_seed(0)
    shapes = {"self_attn.q_proj": (576, 576), "self_attn.v_proj": (192, 576)}
    for name, shape in {**shapes, "mlp.down_proj": (576, 1536)}.items():
        weight = weights.packed(f"model.layers.{options.layer}.{name}", shape).dequantize()
        blocks = weight.reshape(-1, _BLOCK)
        step = (blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)) / _STEPS
        noise = (torch.rand(blocks.shape, generator=generator) - 0.5) * step
        for label, each in ("as it is", weight), ("with noise", (blocks + noise).reshape(shape)):
            errors = {kind: error(each, kind) for kind in (GgmlType.Q5_0, GgmlType.Q5_1)}
            print(name, label, *(f"{kind.name} {lost:.4f}" for kind, lost in errors.items()))


def error(weight: torch.Tensor, kind: GgmlType) -> float:
    lost = encode(weight, kind).dequantize() - weight
    return float(lost.norm() / weight.norm())


if __name__ == "__main__":
    main()
