"""Whether the engine's answers are right, on a model small enough to ask somebody else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from aphrodite_engine.llm import Generation
from aphrodite_engine.sampling.params import SamplingParams
from formats import WeightFormat
from oracles import Score, ask_reference, ask_transformers
from scenarios import GREEDY
from session import Session, open_session, random_prompts
from shapes import Shape

LENGTHS = (1, 7, 33, 64, 130, 200)
"""Tokens of the prompts, in turn."""
OUTPUT = 24
CROWD, ALONE, CHUNK = 64, 8, 64
"""Requests of the crowd, those among them that also run alone, and tokens of a small step."""


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict."""

    name: str
    passed: bool
    detail: str


def check_answers(kind: WeightFormat, shape: Shape, device: torch.device) -> Check:
    """Greedy answers and their log-probabilities, prompts included, against an oracle."""
    session = open_session(
        kind.open(shape, device), device, max_model_len=512, max_num_seqs=16, **kind.options
    )
    params = SamplingParams(
        max_tokens=OUTPUT, ignore_eos=True, logprobs=1, prompt_logprobs=1, stages=GREEDY
    )
    prompts = random_prompts(len(LENGTHS), LENGTHS, shape.vocabulary)
    answers = session.generate(prompts, params, progress=False)
    session.close()
    sequences = [answer.prompt_tokens + answer.completions[0].tokens for answer in answers]
    if kind.name == "bf16":
        oracle, scores = (
            "transformers",
            ask_transformers(kind.open(shape, device), shape, device, sequences),
        )
    else:
        oracle, scores = "the reference", ask_reference(kind, shape, device, sequences)
    return _verdict(f"{kind.name} on {shape.name} against {oracle}", kind, answers, scores)


def _verdict(
    name: str, kind: WeightFormat, answers: Sequence[Generation], scores: Sequence[list[Score]]
) -> Check:
    differences: list[float] = []
    regret = 0.0
    for answer, each in zip(answers, scores, strict=True):
        found = [*answer.prompt_logprobs, *answer.completions[0].logprobs]
        pairs = list(zip(found, each, strict=True))
        differences += [ours.logprob - theirs.own for ours, theirs in pairs]
        chosen = pairs[len(answer.prompt_logprobs) :]
        regret = max(regret, *(theirs.best - theirs.own for _, theirs in chosen))
    rms = math.sqrt(sum(d * d for d in differences) / len(differences))
    worst = max(map(abs, differences))
    passed = rms <= kind.tolerance and regret <= 6 * kind.tolerance
    return Check(
        name,
        passed,
        f"{len(differences)} log-probabilities: rms {rms:.4f} (at most {kind.tolerance}), worst "
        f"{worst:.4f}; the worst greedy choice costs {regret:.4f}",
    )


def check_company(kind: WeightFormat, shape: Shape, device: torch.device) -> Check:
    """Deterministic answers in a crowd and in chunks, bit for bit those alone."""
    options: dict[str, Any] = {
        "deterministic": True,
        "enable_prefix_caching": False,  # or those that run alone would find the crowd's blocks
        "max_model_len": 512,
        **kind.options,
    }
    prompts = random_prompts(CROWD, LENGTHS, shape.vocabulary)
    session = open_session(kind.open(shape, device), device, max_num_seqs=CROWD, **options)
    crowd = _answers(session, prompts)
    alone = [_answers(session, [prompt])[0] for prompt in prompts[:ALONE]]
    session.close()
    chunked = open_session(
        kind.open(shape, device),
        device,
        max_num_seqs=ALONE,
        max_num_batched_tokens=CHUNK,
        **options,
    )
    chunks = _answers(chunked, prompts)
    chunked.close()
    passed = alone == crowd[:ALONE] and chunks == crowd
    detail = f"alone {_differences(alone, crowd)}, in chunks {_differences(chunks, crowd)}"
    return Check(f"{kind.name} on {shape.name}, deterministic", passed, detail)


def check_session(session: Session, name: str) -> Check:
    """The same of an engine that is there, without chunks: some in a crowd and alone."""
    prompts = random_prompts(CROWD, LENGTHS, session.info.vocab_size)
    crowd = _answers(session, prompts)
    some = range(3, CROWD, CROWD // 4)
    alone = [_answers(session, [prompts[i]])[0] for i in some]
    among = [crowd[i] for i in some]
    return Check(name, alone == among, f"alone {_differences(alone, among)}")


def _differences(
    answers: Sequence[list[tuple[int, float]]], crowd: Sequence[list[tuple[int, float]]]
) -> str:
    """How many answers are not those of the crowd, and from which token on at the earliest."""
    pairs = list(zip(answers, crowd, strict=False))
    tokens = sum([a for a, _ in ours] != [b for b, _ in theirs] for ours, theirs in pairs)
    firsts = [
        next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        for ours, theirs in pairs
        if ours != theirs
    ]
    where = f", the first at token {min(firsts)}" if firsts else ""
    return f"{len(firsts)} of {len(pairs)} differ ({tokens} in their tokens{where})"


def _answers(session: Session, prompts: Sequence[list[int]]) -> list[list[tuple[int, float]]]:
    """Tokens and log-probabilities, half of the requests greedy and half drawn."""
    session.clock.reset()
    greedy = SamplingParams(max_tokens=OUTPUT, ignore_eos=True, logprobs=0, stages=GREEDY)
    drawn = msgspec.structs.replace(greedy, stages=(), seed=7)
    params = [drawn if len(prompt) % 2 else greedy for prompt in prompts]
    answers = session.generate(list(prompts), params, progress=False)
    return [[(p.token, p.logprob) for p in each.completions[0].logprobs] for each in answers]
