"""What samplers cost: each stage alone, and a whole engine with many of them beside a greedy one.

    python benchmarks/samplers/run.py [--peers] [--device cuda] [--vocabulary 128256] [--rows 64]
    python benchmarks/samplers/run.py --engine demo

Without --engine: microseconds of one `Sampler.sample` over random logits, for rows that all use one
stage, beside greedy rows, with histories of --history tokens. --peers: also what the warpers of
transformers take for the same rows, with as many threads, where they have such a stage. --logits:
`peaked` have few likely tokens, as models give; `flat` are normal numbers, of which thousands are
likely.

With --engine: output tokens per second of so many requests through the offline `LLM`, each set of
samplers beside greedy ones, medians of rounds. The JSON goes to benchmarks/results/samplers/.
"""

import argparse
import importlib
import json
import os
import statistics
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from aphrodite_engine import LLM, SamplingParams
from aphrodite_engine.plan import RowStart
from aphrodite_engine.sampling.breakers import Breaker
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.stages.bad_words import BadWords
from aphrodite_engine.sampling.stages.ban_eos_token import BanEosToken
from aphrodite_engine.sampling.stages.dry import Dry
from aphrodite_kernels.backend import backend_for
from msgspec.structs import replace

RESULTS = Path(__file__).resolve().parent.parent / "results" / "samplers"
PROMPT, CALLS = 256, 8
STAGES: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 0.8},
    {"dynatemp_min": 0.5, "dynatemp_max": 1.5},
    {"top_k": 40},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"top_a": 0.2},
    {"tfs": 0.95},
    {"typical_p": 0.9},
    {"epsilon_cutoff": 3},
    {"eta_cutoff": 3},
    {"nsigma": 1.5},
    {"smoothing_factor": 0.3},
    {"skew": 0.5},
    {"xtc_probability": 0.5, "xtc_threshold": 0.1},
    {"mirostat_mode": 1, "mirostat_tau": 5},
    {"mirostat_mode": 2, "mirostat_tau": 5},
    {"adaptive_target": 0.3},
    {"repetition_penalty": 1.1},
    {"frequency_penalty": 0.2, "presence_penalty": 0.2},
    {"dry_multiplier": 0.8},
    {"no_repeat_ngram_size": 4},
    {"logit_bias": {"5": 3, "9": -3}},
    {"custom_token_bans": [3, 4]},
    {"allowed_token_ids": [3, 4, 5, 6]},
    {"ban_eos_token": True},
    {"token_ban_ranges": [[[3, 4], 0, 1_000_000]]},
    {"bad_words": ["of two tokens"]},
)
WARPERS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "temperature": ("TemperatureLogitsWarper", (0.8,)),
    "top_k": ("TopKLogitsWarper", (40,)),
    "top_p": ("TopPLogitsWarper", (0.9,)),
    "min_p": ("MinPLogitsWarper", (0.05,)),
    "typical_p": ("TypicalLogitsWarper", (0.9,)),
    "epsilon_cutoff": ("EpsilonLogitsWarper", (3e-4,)),
    "eta_cutoff": ("EtaLogitsWarper", (3e-4,)),
    "repetition_penalty": ("RepetitionPenaltyLogitsProcessor", (1.1,)),
    "no_repeat_ngram_size": ("NoRepeatNGramLogitsProcessor", (4,)),
}
"""Of transformers, with the values that the stages have above."""
MIXES: dict[str, dict[str, Any]] = {
    "temperature, min_p, repetition": {
        "temperature": 0.8, "min_p": 0.05, "repetition_penalty": 1.1,
    },
    "DRY, XTC, min_p, penalties": {
        "temperature": 0.8, "min_p": 0.05, "repetition_penalty": 1.1, "frequency_penalty": 0.1,
        "dry_multiplier": 0.8, "dry_sequence_breakers": [],
        "xtc_probability": 0.5, "xtc_threshold": 0.1,
    },
    "top_p, top_k": {"top_p": 0.9, "top_k": 40},
    "mirostat 2": {"mirostat_mode": 2, "mirostat_tau": 5},
}  # fmt: skip


def row_start(row: int, params: SamplingParams, tokens: list[int]) -> RowStart:
    return RowStart(
        row=row, request=str(row), choice=0, tokens=tokens, prompt_length=PROMPT,
        params=params, seed=row, stop_tokens=[],
    )  # fmt: skip


def logits_of(kind: str, rows: int, vocabulary: int, device: torch.device) -> torch.Tensor:
    """Flat: normal numbers; peaked: also a few that stand out."""
    normal = torch.randn(rows, vocabulary, device=device)
    if kind == "flat":
        return 3 * normal
    return 2 * normal + 16 * torch.rand(rows, vocabulary, device=device).pow(400)


def time_stages(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Microseconds of one step's sampling, by the fields of all its rows and by whose it is."""
    device = torch.device(arguments.device)
    backend = backend_for(device, threads=arguments.threads)
    logits = logits_of(arguments.logits, arguments.rows, arguments.vocabulary, device)
    shape = (arguments.rows, arguments.history + CALLS)
    history = torch.randint(arguments.vocabulary, shape, dtype=torch.int32, device=device)
    begun = history[:, : arguments.history].tolist()
    on_cpu, found = device.type == "cpu", {}
    for fields in STAGES:
        stages = stages_from(fields)
        if arguments.only not in str(fields):
            continue
        sampler = Sampler(backend, at_once=2**22 if on_cpu else logits.numel())
        params = SamplingParams(stages=with_tokens(stages))
        for row in range(arguments.rows):
            sampler.start(row_start(row, params, begun[row]))
        places = iter(standings(arguments.rows, arguments.history, device))
        own = clocked(lambda s=sampler, p=places: s.sample(logits, next(p), history), device)
        spans, name = {"ours": own}, next(iter(fields))
        if arguments.peers and name in WARPERS and fields != {"temperature": 0}:
            tokens = history[:, : arguments.history].long()
            spans["transformers"] = time_warper(name, logits, tokens, arguments.threads)
        found[str(fields)] = spans
        line = ", ".join(f"{whose} {span:.0f} us" for whose, span in spans.items())
        print(f"{line}  {fields}", flush=True)
    return found


def time_warper(name: str, logits: torch.Tensor, tokens: torch.Tensor, threads: int) -> float:
    """Microseconds of the peer's stage alone: no copy, no draw."""
    kind, values = WARPERS[name]
    warper = getattr(importlib.import_module("transformers"), kind)(*values)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return clocked(lambda: warper(tokens, logits), logits.device)
    finally:
        torch.set_num_threads(before)


def with_tokens(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Their texts as some tokens: here is no tokenizer."""
    return tuple(map(_with_tokens, stages))


def _with_tokens(stage: Stage) -> Stage:
    match stage:
        case Dry():
            return replace(stage, breakers=(Breaker(array("i", range(100)).tobytes(), ()),))
        case BanEosToken():
            return replace(stage, ends=(1, 2))
        case BadWords():
            return replace(stage, bad_tokens=((5, 9), (6, 9)))
        case _:
            return stage


def standings(rows: int, history: int, device: torch.device) -> list[Standing]:
    """Where the rows stand at each call."""
    return [
        Standing([*range(rows)], [at] * rows, torch.full((rows,), at, device=device).int())
        for at in range(history, history + CALLS)
    ]


@torch.inference_mode()
def clocked(call: Callable[[], object], device: torch.device) -> float:
    """Microseconds, the median of several; a first call makes ready."""
    spans = []
    for _ in range(CALLS):
        _settle(device)
        begun = time.perf_counter()
        call()
        _settle(device)
        spans.append(1e6 * (time.perf_counter() - begun))
    return statistics.median(spans[1:])


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_engine(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Output tokens per second, and their share of those of greedy requests in the same rounds."""
    options = {"device": arguments.device, "max_num_seqs": arguments.rows}
    llm = LLM(arguments.engine, generation_config="none", **options)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(100, 20000, (arguments.rows, 64), generator=generator).tolist()
    greedy: dict[str, Any] = {"temperature": 0}
    found = {}
    for name, fields in MIXES.items():
        rates = [
            (
                rate(llm, prompts, greedy, arguments.tokens),
                rate(llm, prompts, fields, arguments.tokens),
            )
            for _ in range(arguments.rounds)
        ]
        usual, mixed = (statistics.median(side) for side in zip(*rates, strict=True))
        found[name] = {"greedy": usual, "mixed": mixed, "share": mixed / usual}
        print(f"{mixed:8.0f} tok/s, {mixed / usual:6.1%} of greedy  {name}", flush=True)
    return found


def rate(llm: LLM, prompts: Sequence[list[int]], fields: dict[str, Any], tokens: int) -> float:
    params = SamplingParams(max_tokens=tokens, ignore_eos=True, stages=stages_from(fields), seed=1)
    begun = time.perf_counter()
    answers = llm.generate(list(prompts), params, progress=False)
    count = sum(len(answer.completions[0].tokens) for answer in answers)
    return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU backend")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument(
        "--history", type=int, default=512, help="tokens of each row, without --engine"
    )
    parser.add_argument(
        "--only", default="", help="stages whose fields hold this, without --engine"
    )
    parser.add_argument("--logits", choices=("flat", "peaked"), default="flat")
    parser.add_argument("--peers", action="store_true", help="time transformers, too")
    parser.add_argument("--engine", help="a model: whole steps instead of stages")
    parser.add_argument("--tokens", type=int, default=48, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true", help="write no JSON")
    arguments = parser.parse_args()
    found = time_engine(arguments) if arguments.engine else time_stages(arguments)
    if arguments.dry_run:
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    kind = "engine" if arguments.engine else "stages"
    if not arguments.engine and arguments.logits != "flat":
        kind += f"-{arguments.logits}"
    settings = {key: value for key, value in vars(arguments).items() if key != "dry_run"}
    settings["load"] = os.getloadavg()[0]
    report = json.dumps({"settings": settings, "found": found}, indent=1)
    (RESULTS / f"{kind}-{arguments.device}.json").write_text(report + "\n")


if __name__ == "__main__":
    main()
