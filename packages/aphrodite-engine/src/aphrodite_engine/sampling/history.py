"""Tokens so far, read from the matrix of tokens."""

import torch
from torch import Tensor

from aphrodite_engine.sampling.rows import History, Output


def read_history(tokens: Tensor, lengths: Tensor, prompts: Tensor, longest_output: int) -> History:
    """The history of n rows.

    Args:
        tokens: [n, longest length] int32; beyond a row's length anything.
        lengths: [n, 1] int64, at least 1.
        prompts: [n, 1] int64, lengths of the prompts.
        longest_output: the largest of lengths - prompts.
    """
    last = lengths - 1
    places = torch.arange(tokens.shape[1], device=tokens.device)

    def output() -> Output:
        places = torch.arange(longest_output, device=tokens.device) + prompts
        return Output(tokens.gather(1, places.minimum(last)).long(), places <= last, places)

    seen = tokens.gather(1, places.minimum(last)).long()
    return History(seen, places, lengths, prompts, output)
