"""One start of an engine, in phases, as one line of JSON: seconds by phase, in order.

    python benchmarks/gpu/first_token.py '{"model": PATH, "device": "cuda", "options": {}}' TIME

TIME is time.time() of whoever started this process. The phases are those of `LLM`: what it does in
its constructor is done here one after the other.
"""

import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aphrodite_engine.sampling.params import SamplingParams


class Phases:
    """Seconds since the last mark, by name."""

    def __init__(self, started: float) -> None:
        self._started = self._last = started
        self.seconds: dict[str, float] = {}

    def mark(self, name: str) -> None:
        now = time.time()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._last, 3)
        self._last = now

    def say(self, line: str) -> None:
        """A line of the loader's progress: which phase has ended."""
        if line.startswith("free memory"):
            self.mark("open and plan")
        elif line.startswith("loaded "):
            self.mark("read and upload")

    def finish(self) -> None:
        self.seconds["in all"] = round(time.time() - self._started, 3)


class Compilations:
    """Kernels that Triton made or found while this process ran."""

    def __init__(self) -> None:
        self.made = self.found = 0
        self.seconds = 0.0

    def __call__(self, *, times: object, cache_hit: bool, **_: object) -> None:
        self.seconds += times.total / 1e6  # type: ignore[attr-defined]
        self.made += not cache_hit
        self.found += cache_hit

    def listen(self) -> None:
        import triton

        triton.knobs.compilation.listener = self


def main() -> None:
    order = json.loads(sys.argv[1])
    phases = Phases(float(sys.argv[2]))
    phases.mark("interpreter")
    import torch

    phases.mark("import torch")
    from aphrodite_engine.build import build_engine
    from aphrodite_engine.config import EngineConfig
    from aphrodite_engine.loading.text import load_text
    from session import Session

    phases.mark("import the engine")
    compilations = Compilations()
    if order["device"].startswith("cuda"):
        compilations.listen()
        torch.zeros(1, device=order["device"])
        phases.mark("CUDA")
    config = EngineConfig(model=order["model"], device=order["device"], **order["options"])
    text = load_text(config, phases.say)
    phases.mark("tokenizer")
    engine, info = build_engine(config, sorted(text.tokenizer.end_ids), phases.say)
    session = Session(engine, info, text.tokenizer)
    if order["device"].startswith("cuda"):
        torch.cuda.synchronize()
    phases.mark("measure and allocate")
    session.generate([list(range(32))], _greedy(1), progress=False)
    phases.mark("first token")
    phases.finish()
    session.generate([list(range(32))], _greedy(2), progress=False)
    phases.mark("then: a decoding step")
    while session.clock.engine.prepare():
        pass
    phases.mark("then: capture all")
    phases.seconds |= {
        "kernels compiled": compilations.made,
        "kernels found": compilations.found,
        "in Triton, of all": round(compilations.seconds, 3),
    }
    sys.stdout.write(json.dumps(phases.seconds) + "\n")


def _greedy(tokens: int) -> "SamplingParams":
    from aphrodite_engine.sampling.params import SamplingParams
    from aphrodite_engine.sampling.stages.temperature import Temperature

    return SamplingParams(
        max_tokens=tokens, ignore_eos=True, stages=(Temperature(temperature=0.0),)
    )


if __name__ == "__main__":
    main()
