"""Our side of compare.py: tokens per second of the real engine, as one line of JSON."""

import argparse
import json
import random
import time

from aphrodite_engine.build import build_engine
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.engine import Engine
from aphrodite_engine.request import EngineRequest
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.stages.temperature import Temperature

PREFILL, DECODE, CONTEXT = 512, 64, 32


def prompts(count: int, length: int) -> list[list[int]]:
    """Random token ids, the same on both sides."""
    chooser = random.Random(0)
    return [chooser.sample(range(100, 20000), length) for _ in range(count)]


def add(engine: Engine, name: str, prompt: list[int], tokens: int) -> None:
    greedy = (Temperature(temperature=0),)
    params = SamplingParams(max_tokens=tokens, ignore_eos=True, stages=greedy)
    engine.add(EngineRequest(id=name, prompt=prompt, params=params, arrival=time.monotonic()))


def prefill(engine: Engine) -> float:
    """Prompt to first token."""
    seconds = []
    for attempt in range(4):
        add(engine, f"prefill{attempt}", prompts(1, PREFILL)[0], 1)
        started = time.perf_counter()
        while engine.unfinished:
            engine.step()
        seconds.append(time.perf_counter() - started)
    return PREFILL / sorted(seconds[1:])[1]


def decode(engine: Engine, sequences: int) -> float:
    """All sequences at once, the prompts' time left out."""
    for index, prompt in enumerate(prompts(sequences, CONTEXT)):
        add(engine, f"decode{sequences}-{index}", prompt, DECODE + 1)
    waiting = sequences
    while waiting:
        waiting -= sum(len(output.tokens) == 1 for output in engine.step())
    started, tokens = time.perf_counter(), 0
    while engine.unfinished:
        tokens += sum(len(output.tokens) for output in engine.step())
    return tokens / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    config = EngineConfig(
        model=arguments.model,
        threads=arguments.threads,
        max_model_len=1024,
        max_num_seqs=16,
        enable_prefix_caching=False,
    )
    engine, _ = build_engine(config, [], lambda _: None)
    result = {"prefill": prefill(engine)}
    decode(engine, 1)
    result["decode"] = decode(engine, 1)
    for sequences in (4, 8, 16):
        result[f"parallel{sequences}"] = decode(engine, sequences)
    engine.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
