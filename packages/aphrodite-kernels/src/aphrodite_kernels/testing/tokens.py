"""Cases of the ops that choose tokens."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from aphrodite_kernels.testing.case import Case, Draw

_OFF = 1e-5
"""How far a cumulative sum may be off."""


def token_cases() -> Iterator[Case]:
    """Argmax and draw, over widths on both sides of whole blocks."""
    for width in (1, 255, 256, 300, 5001, 262144):
        yield Case(f"argmax-{width}", partial(_check_argmax, width=width))
        yield Case(f"draw-{width}", partial(_check_draw, width=width))
        yield Case(f"draw-few-{width}", partial(_check_few, width=width))
        yield Case(f"logsumexp-{width}", partial(_check_logsumexp, width=width))
    yield Case("draw-failed", _check_failed)


def _check_argmax(draw: Draw, width: int) -> None:
    strided = draw.float32(5, width + 24)[:, 8 : 8 + width]
    tied, below = draw.float32(5, width).round(), -draw.float32(5, width).abs() - 1
    for logits in (strided, tied, below, draw.normal(5, width)):
        tokens, valid = draw.backend.argmax(logits)
        assert tokens.dtype == torch.int32
        assert valid.all()
        assert torch.equal(tokens, draw.reference().argmax(logits)[0])


def _check_logsumexp(draw: Draw, width: int) -> None:
    """Against float64; a row alone gives the same bits."""
    logits = 3 * draw.float32(9, width + 24)[:, 8 : 8 + width] + 50
    logits[:, 1::3] = -math.inf
    logits[3] = -math.inf
    found = draw.backend.logsumexp(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, logits.double().logsumexp(-1).float(), rtol=0, atol=_OFF)
    for row in range(len(logits)):
        assert draw.backend.logsumexp(logits[row : row + 1]) == found[row], f"row {row} alone"


def _check_draw(draw: Draw, width: int) -> None:
    """Each token is where its distribution passes the number, and so is it alone."""
    logits = 3 * draw.float32(9, width + 24)[:, 8 : 8 + width]
    logits[:, 1::3] = -math.inf
    ends = torch.tensor([0.0, 1 - 2**-24, 1 - 2**-23, 0.5], device=logits.device)
    uniform = torch.cat((ends, draw.float32(5).abs() % 1))
    tokens, valid = draw.backend.draw(logits, uniform)
    assert tokens.dtype == torch.int32
    assert valid.all()
    _check_places(logits, uniform, tokens)
    for row in range(len(logits)):
        alone, _ = draw.backend.draw(logits[row : row + 1], uniform[row : row + 1])
        assert alone == tokens[row], f"row {row} is drawn otherwise alone"


def _check_few(draw: Draw, width: int) -> None:
    """The smallest and the largest number never give a token of probability 0."""
    logits = torch.full((4, width), -math.inf, device=draw.backend.device)
    allowed = sorted({width // 3, width // 2, width * 2 // 3})
    logits[:, allowed] = torch.tensor([0.0, -3.0, -30.0], device=logits.device)[: len(allowed)]
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-24, 1 - 2**-23], device=logits.device)
    tokens, valid = draw.backend.draw(logits, uniform)
    assert valid.all()
    assert tokens[0] == allowed[0]
    assert torch.isin(tokens, torch.tensor(allowed, device=tokens.device)).all()


def _check_places(logits: Tensor, uniform: Tensor, tokens: Tensor) -> None:
    probabilities = logits.double().softmax(-1)
    own = probabilities.gather(1, tokens.long()[:, None])[:, 0]
    upto = probabilities.cumsum(-1).gather(1, tokens.long()[:, None])[:, 0]
    assert (own > 0).all(), "a token of probability 0 was drawn"
    assert (upto > uniform - _OFF).all(), "a token before the right one was drawn"
    assert (upto - own <= uniform + _OFF).all(), "a token behind the right one was drawn"


def _check_failed(draw: Draw) -> None:
    """Rows without a distribution fail alone."""
    logits = draw.float32(7, 700)
    logits[1] = -math.inf
    logits[2, 699] = math.inf
    logits[3, 0] = math.nan
    logits[4, 300] = -math.nan
    logits[5, :650] = -math.inf
    expected = torch.tensor([True, False, False, False, False, True, True], device=logits.device)
    uniform = draw.float32(7).abs() % 1
    for tokens, valid in (draw.backend.argmax(logits), draw.backend.draw(logits, uniform)):
        assert torch.equal(valid, expected)
        assert (tokens[~valid] == 0).all()
