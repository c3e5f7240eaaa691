"""Requests as the sampler sees them."""

from aphrodite_engine.plan import RowStart
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams


def row_start(row, fields=None, *, params=None, **others):
    """A request that takes a row, with stages of wire fields or whole params; a prompt of 1."""
    plain = {
        "choice": 0,
        "tokens": [],
        "prompt_length": 1,
        "seed": 0,
        "stop_tokens": [],
    }
    params = params or SamplingParams(stages=stages_from(fields))
    return RowStart(row=row, request=str(row), params=params, **(plain | others))
