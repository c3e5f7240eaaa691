"""Text for calibration, and other text to measure with, as pieces of equal length."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from aphrodite_engine.errors import ConfigError
from aphrodite_engine.text.tokenizer import Tokenizer

_HELD_OUT = 8
"""Every so many-th piece is for measuring."""
_MEASURED_AT_MOST = 16
_TEXT = "calibration.txt"


@dataclass(frozen=True, eq=False, slots=True)
class Corpus:
    """Pieces of a text, [B, L] tokens each."""

    calibration: Tensor
    held_out: Tensor
    """None of them is among those of calibration."""


def read_corpus(file: str | None, tokenizer: Tokenizer, samples: int, length: int) -> Corpus:
    """Cut a text file, or the engine's own text, into pieces.

    Raises:
        ConfigError: there is no such file, or it is too short for one piece of either kind.
    """
    text = _read(file)
    begin = list(tokenizer.special.before)
    tokens = tokenizer.encode(text, add_special=False, parse_special=False)
    fresh = length - len(begin)
    if fresh < 2:
        raise ConfigError(f"calibration pieces have {length} tokens; ask for more with --length")
    pieces = [
        begin + tokens[start : start + fresh] for start in range(0, len(tokens) - fresh + 1, fresh)
    ]
    held_out = pieces[_HELD_OUT - 1 :: _HELD_OUT] or pieces[1:2]
    calibration = [piece for piece in pieces if piece not in held_out]
    if not held_out or not calibration:
        raise ConfigError(
            f"{file or 'the calibration text'} has {len(tokens)} tokens, too few for two pieces of "
            f"{length}; give a longer --calibration, or a smaller --length"
        )
    return Corpus(torch.tensor(calibration[:samples]), torch.tensor(held_out[:_MEASURED_AT_MOST]))


def _read(file: str | None) -> str:
    if file is None:
        return files("aphrodite_engine.quantizing").joinpath(_TEXT).read_text(encoding="utf-8")
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--calibration {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--calibration {file} is not text in UTF-8: {error}") from error
