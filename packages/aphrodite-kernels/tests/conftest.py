"""Tests of small tensors: a second torch thread would spend its time waiting.

Without a GPU, Triton kernels run in Triton's interpreter, which takes a second for what a GPU does
in a millisecond. There, tests marked `spare` do not run, and of those marked `pairwise` only so
many that any two values of their parameters meet.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated, so before any import


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to devices what an interpreter need not repeat."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    spare = {item for item in items if item.get_closest_marker("spare")}
    pairwise = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        if item.get_closest_marker("pairwise"):
            pairwise[item.nodeid.partition("[")[0]].append(item)
    for alike in pairwise.values():
        spare |= set(alike) - set(_few_with_all_pairs(alike))
    config.hook.pytest_deselected(items=[item for item in items if item in spare])
    items[:] = [item for item in items if item not in spare]


def _few_with_all_pairs(items: list[Any]) -> Iterator[Any]:
    """Of the combinations of a test's parameters some in which any two values meet that ever do."""
    values = {item: [(k, id(v)) for k, v in item.callspec.params.items()] for item in items}
    pairs = {item: set(combinations(values[item], 2)) for item in items}
    while any(pairs.values()):
        best = max(pairs, key=lambda item: len(pairs[item]))
        yield best
        met = pairs[best].copy()
        for missing in pairs.values():
            missing -= met


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


def _patch_once() -> None:
    """Let calls of device functions find the language as their launch has patched it.

    Triton 3.6 searches all of it again at each call, which can take longer than what is called.
    """
    from triton.language.core import is_builtin
    from triton.runtime import interpreter

    patch = interpreter._patch_lang

    def patch_once(function: Any) -> Any:
        seen = (function.__globals__.get(name) for name in ("tl", "core"))
        languages = [found for found in seen if hasattr(found, "load")]
        if languages and not any(is_builtin(language.load) for language in languages):
            return interpreter._LangPatchScope()  # nothing to restore
        return patch(function)

    interpreter._patch_lang = patch_once


def _make_types_once() -> None:
    """Let equal types of blocks share their parts, of which every operation makes several."""
    from triton.language.core import block_type, constexpr

    make = block_type.__init__
    known: dict[Any, dict[str, Any]] = {}

    def make_once(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = (size.value if isinstance(size, constexpr) else size for size in shape)
        key = (element_ty.name, element_ty.is_ptr() and element_ty.address_space, *sizes)
        if key not in known:
            make(self, element_ty, shape)
            known[key] = vars(self).copy()
        vars(self).update(known[key])

    block_type.__init__ = make_once


if os.environ.get("TRITON_INTERPRET") == "1":
    _index_by_item()
    _round_with_carry()
    _patch_once()
    _make_types_once()
