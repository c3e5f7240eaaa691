"""Tests of small tensors: a second torch thread would spend its time waiting.

Without a GPU, Triton kernels run in Triton's interpreter.
"""

import os
from typing import Any

import torch

torch.set_num_threads(1)

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated, so before any import


def _index_by_item() -> None:
    """Let `range` take the interpreter's scalars, arrays of one element.

    Triton 3.6 calls `int` on them, which numpy refuses from version 2.4 on.
    """
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_with_index(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_with_index


def _round_with_carry() -> None:
    """Let the interpreter round to eight-bit floats as devices do.

    Triton 3.6 loses the carry into the exponent (127 becomes 64), and what is no number.
    """
    from triton import language
    from triton.runtime import interpreter

    convert = interpreter._convert_float
    kinds = {language.float8e4nv: torch.float8_e4m3fn, language.float8e5: torch.float8_e5m2}

    def convert_with_carry(data: Any, source: Any, target: Any, rounding: Any) -> Any:
        if target in kinds and source == language.float32:
            kind = kinds[target]
            largest = torch.finfo(kind).max
            wide = torch.from_numpy(data.reshape(-1)).clamp(-largest, largest)
            return wide.to(kind).view(torch.uint8).numpy().reshape(data.shape)
        return convert(data, source, target, rounding)

    interpreter._convert_float = convert_with_carry


if os.environ.get("TRITON_INTERPRET") == "1":
    _index_by_item()
    _round_with_carry()
