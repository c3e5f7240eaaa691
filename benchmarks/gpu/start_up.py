"""From the start of a process to its first token: with kernels to compile, and with a warm cache.

A checkpoint of safetensors is written first, its data one piece of random numbers over and over;
afterwards its files are in the page cache. Each start is a fresh interpreter that runs
first_token.py.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from session import write_tokenizer
from shapes import Shape

HERE = Path(__file__).resolve().parent
SHARD = 4 << 30
"""Bytes of a file, about."""
PIECE = 1 << 24
"""Elements that are drawn."""


def start_twice(
    shape: Shape, device: str, options: Mapping[str, Any], folder: Path, seconds: float
) -> Iterator[tuple[str, dict[str, float]]]:
    """Seconds by phase, of a start without compiled kernels and of one with them."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="aphrodite-start-up-") as place:
        model, cache = Path(place) / "model", Path(place) / "kernels"
        started = time.perf_counter()
        write_checkpoint(shape, model)
        written = time.perf_counter() - started
        for name in ("cold", "warm"):
            phases = _start(model, device, options, cache, seconds)
            yield name, phases | {"(writing the checkpoint, before)": written}


def _start(
    model: Path, device: str, options: Mapping[str, Any], cache: Path, seconds: float
) -> dict[str, float]:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    order = {"model": str(model), "device": device, "options": dict(options)}
    reply = subprocess.run(
        [sys.executable, str(HERE / "first_token.py"), json.dumps(order), str(time.time())],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=seconds,
    )
    if reply.returncode:
        last = (reply.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"first_token.py failed: {last}")
    phases: dict[str, float] = json.loads(reply.stdout.splitlines()[-1])
    return phases


def write_checkpoint(shape: Shape, folder: Path) -> None:
    """A Hugging Face directory in bfloat16."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(shape.config() | {"dtype": "bfloat16"}))
    write_tokenizer(folder, shape.vocabulary)
    pieces = _pieces(shape)
    shards = list(_shards(shape))
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda n, s: _write_shard(folder / n, s, pieces), names, shards):
            pass
    weight_map = {
        tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard
    }
    index_file = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))


def _shards(shape: Shape) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes by name, a file at a time."""
    tensors: dict[str, tuple[int, ...]] = {
        f"{name}.weight": size for name, size in shape.matrices().items()
    }
    tensors |= {f"{name}.weight": (shape.hidden,) for name in shape.norms()}
    shard: dict[str, tuple[int, ...]] = {}
    for name, size in tensors.items():
        if shard and 2 * sum(map(math.prod, [*shard.values(), size])) > SHARD:
            yield shard
            shard = {}
        shard[name] = size
    yield shard


def _pieces(shape: Shape) -> tuple[memoryview, memoryview]:
    """Bytes of random matrices, and of a norm."""
    drawn = torch.randn(PIECE, dtype=torch.bfloat16).mul_(shape.hidden**-0.5)
    ones = torch.ones(shape.hidden, dtype=torch.bfloat16)
    return tuple(memoryview(t.view(torch.uint8).numpy()) for t in (drawn, ones))  # type: ignore[return-value]


def _write_shard(
    path: Path, tensors: Mapping[str, tuple[int, ...]], pieces: tuple[memoryview, memoryview]
) -> None:
    header: dict[str, object] = {}
    end = 0
    for name, size in tensors.items():
        start, end = end, end + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [start, end]}
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    with path.open("wb", buffering=0) as file:
        file.write(len(described).to_bytes(8, "little") + described)
        for size in tensors.values():
            left, piece = 2 * math.prod(size), pieces[len(size) == 1]
            while left:
                left -= file.write(piece[:left])


def room_for(shape: Shape, folder: Path) -> bool:
    """Whether the checkpoint fits."""
    return shutil.disk_usage(folder).free > 2 * 1.1 * (
        shape.multiplied + shape.vocabulary * shape.hidden
    )
