"""Tokens so far, read from the matrix of tokens."""

import torch
from torch import Tensor

from aphrodite_engine.sampling.rows import History


def read_history(tokens: Tensor, lengths: Tensor, prompts: Tensor, longest_output: int) -> History:
    """The history of n rows.

    Args:
        tokens: [n, longest length] int32; beyond a row's length anything.
        lengths: [n, 1] int64, at least 1.
        prompts: [n, 1] int64, lengths of the prompts.
        longest_output: the largest of lengths - prompts.
    """
    last = lengths - 1
    seen = torch.arange(tokens.shape[1], device=tokens.device).minimum(last)
    generated = torch.arange(longest_output, device=tokens.device) + prompts
    return History(
        seen=tokens.gather(1, seen).long(),
        generated=tokens.gather(1, generated.minimum(last)).long(),
        is_generated=generated <= last,
    )
