"""Tokens so far, read from the matrix of tokens."""

from collections.abc import Callable

import torch
from torch import Tensor

from aphrodite_engine.sampling.rows import History, Output, Repeats


def read_history(
    tokens: Tensor,
    lengths: Tensor,
    prompts: Tensor,
    longest_output: int,
    follow: Callable[[Tensor], Tensor],
) -> History:
    """The history of n rows.

    Args:
        tokens: [n, longest length] int32; beyond a row's length anything.
        lengths: [n, 1] int64, at least 1.
        prompts: [n, 1] int64, lengths of the prompts.
        longest_output: the largest of lengths - prompts.
        follow: `Recurrence.follow` of these rows.
    """
    last = lengths - 1
    places = torch.arange(tokens.shape[1], device=tokens.device)

    def seen() -> Tensor:
        return tokens.gather(1, places.minimum(last)).long()

    def output() -> Output:
        places = torch.arange(longest_output, device=tokens.device) + prompts
        return Output(tokens.gather(1, places.minimum(last)).long(), places <= last, places)

    def repeats(least: Tensor) -> Repeats:
        place = places + (lengths - len(places))  # the last tokens of all rows stand together
        token = tokens.gather(1, place.clamp(min=0)).masked_fill_(place < 0, -1)
        length = follow(token)
        token.clamp_(min=0)
        if token.is_cpu:
            return repeats_from(least, place, token, length)
        return all_repeats(place, token, length)

    return History(tokens, places, lengths, prompts, seen, output, repeats)


def repeats_from(least: Tensor, place: Tensor, token: Tensor, length: Tensor) -> Repeats:
    """Places [n, L] whose length is at least a row's [n, 1]; waits for the device."""
    row, column = (length >= least).nonzero(as_tuple=True)
    return Repeats(row, place[row, column], token[row, column].long(), length[row, column])


def all_repeats(place: Tensor, token: Tensor, length: Tensor) -> Repeats:
    """All places [n, L]."""
    row = torch.arange(len(token), device=token.device)[:, None]
    return Repeats(row, place, token.long(), length)
