"""Which tensors of a checkpoint were read: what nobody wanted is an error, not a shrug."""

import math
import re
from collections.abc import Callable, Collection

from aphrodite_quant import TensorInfo, TensorStore, find_quantization, is_cache_scale
from torch import Tensor

from aphrodite_engine.errors import ModelError

_DERIVED = re.compile(r".*\.rotary_emb\.inv_freq|.*\.attn\.(masked_)?bias|rope_freqs\.weight")
"""Buffers that some checkpoints carry and that follow from the configuration."""
_IN_A_LAYER = re.compile(r"(^|\.)layers\.\d+\.")
_NAMED_AT_MOST = 5


def loaded_bytes(store: TensorStore, quantization: str | None) -> int:
    """What the tensors of a store take in memory, the projections of layers quantised."""
    size = None if quantization is None else find_quantization(quantization).PER_WEIGHT
    infos = (store.info(name) for name in store.names())
    return sum(
        info.nbytes
        if size is None or len(info.shape) != 2 or not _IN_A_LAYER.search(info.name)
        else int(math.prod(info.shape) * size)
        for info in infos
    )


class RecordingStore:
    """A store that remembers what was read.

    `progress` is called with the bytes read so far and the bytes in all.
    """

    def __init__(self, store: TensorStore, progress: Callable[[int, int], None]) -> None:
        self._store = store
        self._progress = progress
        self._total = sum(store.info(name).nbytes for name in store.names())
        self._seen: set[str] = set()
        self._read = 0

    def names(self) -> Collection[str]:
        return self._store.names()

    def info(self, name: str) -> TensorInfo:
        return self._store.info(name)

    def read(self, name: str) -> Tensor:
        if name not in self._seen:
            self._seen.add(name)
            self._read += self.info(name).nbytes
            self._progress(self._read, self._total)
        return self._store.read(name)

    def check_all_read(self, *, tied_head: bool) -> None:
        """ModelError naming the tensors that no layer wanted.

        Of a model with a tied head, a stored copy of the head is not wanted, nor anywhere a bias of
        zeros that older tools wrote beside a packed weight; scales of a KV cache are, if it is of
        the kind that they are for (fit.py).
        """
        spare = {"lm_head.weight"} if tied_head else set[str]()
        unread = [
            name
            for name in self.names()
            if name not in self._seen
            and name not in spare
            and not _DERIVED.fullmatch(name)
            and not is_cache_scale(name)
            and not self._adds_nothing(name)
        ]
        if not unread:
            return
        shown = ", ".join(str(self.info(name).name) for name in unread[:_NAMED_AT_MOST])
        more = f" and {len(unread) - _NAMED_AT_MOST} more" if len(unread) > _NAMED_AT_MOST else ""
        raise ModelError(
            f"{self.info(unread[0]).file}: the model has no place for the tensors {shown}{more}; "
            "is config.json that of this checkpoint?"
        )

    def _adds_nothing(self, name: str) -> bool:
        module, _, leaf = name.rpartition(".")
        packed = leaf == "bias" and f"{module}.qweight" in self.names()
        return packed and not bool(self._store.read(name).any())
