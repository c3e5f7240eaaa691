"""The peer's side of compare.py: tokens per second of llama.cpp, as one line of JSON."""

import argparse
import ctypes
import json
import random
import time

import llama_cpp as peer
import numpy

PREFILL, DECODE, CONTEXT = 512, 64, 32


def batch_of(rows: list[tuple[int, int, int, bool]]) -> "peer.llama_batch":
    """A batch of (token, position, sequence, wants logits)."""
    batch = peer.llama_batch_init(len(rows), 0, 1)
    batch.n_tokens = len(rows)
    for index, (token, position, sequence, logits) in enumerate(rows):
        batch.token[index] = token
        batch.pos[index] = position
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = sequence
        batch.logits[index] = logits
    return batch


class Model:
    """A loaded model and a context for `sequences` of them."""

    def __init__(self, path: str, threads: int, sequences: int) -> None:
        self.model = peer.llama_model_load_from_file(
            path.encode(), peer.llama_model_default_params()
        )
        parameters = peer.llama_context_default_params()
        parameters.n_ctx = 1024 * max(1, sequences)
        parameters.n_batch = parameters.n_ubatch = PREFILL
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = peer.llama_init_from_model(self.model, parameters)
        self.vocabulary = peer.llama_vocab_n_tokens(peer.llama_model_get_vocab(self.model))

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        batch = batch_of(rows)
        if peer.llama_decode(self.context, batch):
            raise RuntimeError("llama_decode failed")
        peer.llama_batch_free(batch)

    def argmax(self, row: int) -> int:
        logits = peer.llama_get_logits_ith(self.context, row)
        values = (ctypes.c_float * self.vocabulary).from_address(ctypes.addressof(logits.contents))
        return int(numpy.frombuffer(values, dtype=numpy.float32).argmax())

    def clear(self) -> None:
        peer.llama_memory_clear(peer.llama_get_memory(self.context), True)

    def close(self) -> None:
        peer.llama_free(self.context)
        peer.llama_model_free(self.model)


def prefill(model: Model) -> float:
    tokens = random.Random(0).sample(range(100, 20000), PREFILL)
    rows = [(token, i, 0, i == PREFILL - 1) for i, token in enumerate(tokens)]
    best = []
    for _ in range(4):
        model.clear()
        started = time.perf_counter()
        model.decode(rows)
        model.argmax(PREFILL - 1)
        best.append(time.perf_counter() - started)
    return PREFILL / sorted(best[1:])[1]


def decode(model: Model, sequences: int) -> float:
    model.clear()
    random.seed(0)
    for sequence in range(sequences):
        tokens = random.sample(range(100, 20000), CONTEXT)
        model.decode([(t, i, sequence, i == CONTEXT - 1) for i, t in enumerate(tokens)])
    nexts = [1] * sequences
    started = time.perf_counter()
    for step in range(DECODE):
        model.decode([(nexts[s], CONTEXT + step, s, True) for s in range(sequences)])
        nexts = [model.argmax(s) for s in range(sequences)]
    return sequences * DECODE / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    silent = peer.llama_log_callback(lambda *_: None)  # must outlive every call
    peer.llama_log_set(silent, None)
    model = Model(arguments.model, arguments.threads, 16)
    result = {"prefill": prefill(model)}
    decode(model, 1)
    result["decode"] = decode(model, 1)
    for sequences in (4, 8, 16):
        result[f"parallel{sequences}"] = decode(model, sequences)
    model.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
