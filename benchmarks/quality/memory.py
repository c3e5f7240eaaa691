"""How much memory loading takes beyond the weights that stay: what --quantization works in.

    python3 -m uv run python benchmarks/quality/memory.py [KIND ...] [--width 2048] [--layers 6]

A plain checkpoint of random bfloat16 numbers is made in a temporary directory and loaded on the
CPU as each kind, each time in a new process. Memory is what is no file's (RssAnon), looked at every
millisecond; printed are what stays, the most there was, and their difference in layers as the
checkpoint has them. `plain` is without --quantization.
"""

import argparse
import ctypes
import json
import multiprocessing
import tempfile
import threading
from pathlib import Path

import torch
from aphrodite_engine.loading.model import load_model, open_model
from aphrodite_kernels.backend import backend_for
from aphrodite_quant import quantization_names
from safetensors.torch import save_file

MIB = 1024 * 1024
PLAIN = "plain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", default=[PLAIN, *quantization_names()])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        layer = write_model(Path(folder), options.width, options.layers)
        print(f"a layer of the checkpoint: {layer / MIB:.0f} MiB, {options.layers} of them")
        for kind in options.kinds:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                kept, most = pool.apply(measure, (folder, kind))
            print(
                f"{kind}: {kept / MIB:.0f} MiB stay, at most {most / MIB:.0f} MiB, "
                f"{(most - kept) / layer:+.2f} layers",
                flush=True,
            )


def write_model(folder: Path, width: int, layers: int) -> int:
    """Write a llama checkpoint; bytes of one layer."""
    shapes = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (width // 4, width),
        "self_attn.v_proj": (width // 4, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (4 * width, width),
        "mlp.up_proj": (4 * width, width),
        "mlp.down_proj": (width, 4 * width),
    }
    tensors = {"model.embed_tokens.weight": (256, width), "model.norm.weight": (width,)}
    for number in range(layers):
        start = f"model.layers.{number}"
        tensors |= {f"{start}.{name}.weight": shape for name, shape in shapes.items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{start}.{name}.weight"] = (width,)
    made = {
        name: torch.empty(shape, dtype=torch.bfloat16).uniform_(-1, 1)
        for name, shape in tensors.items()
    }
    save_file(made, folder / "model.safetensors")
    config = {
        "model_type": "llama",
        "vocab_size": 256,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 256,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return 2 * sum(rows * columns for rows, columns in shapes.values())


def measure(folder: str, kind: str) -> tuple[int, int]:
    """Bytes of the process after loading, and the most while it loads; less those before."""
    source = open_model(Path(folder)).quantized(None if kind == PLAIN else kind)
    backend = backend_for(torch.device("cpu"))
    before, most, done = own_memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    loaded = load_model(source, backend, 64, lambda read, total: None)
    done.set()
    watcher.join()
    ctypes.CDLL(None).malloc_trim(0)  # what is free is given back, as far as it can be
    kept = own_memory()
    del loaded
    return kept - before, most - before


def own_memory() -> int:
    """Bytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
