"""What the answers of the engine are compared with: log-probabilities in float32.

An oracle is given whole sequences and says, of each token but the first, its log-probability and
that of the likeliest token in its place. So it follows the engine's choices, and one that is
nearly a tie does not matter.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from aphrodite_engine.loading.model import OpenModel
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_kernels.backends import reference
from formats import WeightFormat
from session import open_session
from shapes import Shape
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Score:
    """Of one token."""

    own: float
    best: float


def ask_transformers(
    source: OpenModel, shape: Shape, device: torch.device, sequences: Sequence[list[int]]
) -> list[list[Score]]:
    """An independent implementation, over the same numbers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device(device):
        model = LlamaForCausalLM(LlamaConfig(**shape.config())).eval()
    store = source.checkpoint.store
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(store.read(name))
        scores = [_scores(model(_row(s, device)).logits[0], s) for s in sequences]
    del model
    gc.collect()
    return scores


def ask_reference(
    kind: WeightFormat, shape: Shape, device: torch.device, sequences: Sequence[list[int]]
) -> list[list[Score]]:
    """The reference backend, over the same numbers."""
    backend = reference.create(device, threads=None, dtype=torch.float32)
    options = {"kv_cache_dtype": "float32", "enforce_eager": True, **kind.options}
    if kind.open_plain is not None:
        source = kind.open_plain(shape, device)
    else:
        source = kind.open(shape, device)
    longest = max(map(len, sequences)) + 1
    session = open_session(
        source, device, backend, dtype="float32", max_model_len=longest, max_num_seqs=4, **options
    )
    params = SamplingParams(max_tokens=1, ignore_eos=True, prompt_logprobs=1)
    answers = session.generate(list(sequences), params, progress=False)
    session.close()
    return [[Score(p.logprob, p.top[0][1]) for p in each.prompt_logprobs] for each in answers]


def _row(sequence: list[int], device: torch.device) -> Tensor:
    return torch.tensor([sequence], device=device)


def _scores(logits: Tensor, sequence: list[int]) -> list[Score]:
    logprobs = logits[:-1].float().log_softmax(-1)
    following = torch.tensor(sequence[1:], device=logits.device)
    own = logprobs.gather(1, following[:, None])[:, 0].tolist()
    return [Score(*pair) for pair in zip(own, logprobs.amax(-1).tolist(), strict=True)]
