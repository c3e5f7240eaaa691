"""What kind of key-value storage a layer needs.

Layers of equal kind form groups of equal size (the last one padded), and every group has its own
block table over one shared pool: a block holds `block_size` positions of all layers of one group.
So a block has the same number of bytes whatever group owns it, and memory flows between kinds.
"""

from collections.abc import Sequence

import msgspec


class KVSpec(msgspec.Struct, frozen=True):
    """Storage of one layer."""

    kv_heads: int
    head_dim: int
    window: int | None = None
    """Positions that stay visible; None: all of them."""


class KVGroup(msgspec.Struct, frozen=True):
    """Layers that share a block table."""

    spec: KVSpec
    layers: tuple[int, ...]
    """Indices of the model's layers; the i-th uses the i-th cache tensor of the pool."""


def group_layers(specs: Sequence[KVSpec]) -> tuple[KVGroup, ...]:
    """Split layers into groups of one kind and equal size, kinds in order of first appearance.

    The size is that of the rarest kind, so that no group is more than half padding unless the
    model is tiny: 15 sliding and 3 full layers become 5 + 1 groups of 3.
    """
    kinds: dict[KVSpec, list[int]] = {}
    for layer, spec in enumerate(specs):
        kinds.setdefault(spec, []).append(layer)
    size = min((len(layers) for layers in kinds.values()), default=0)
    return tuple(
        KVGroup(spec, tuple(layers[start : start + size]))
        for spec, layers in kinds.items()
        for start in range(0, len(layers), size)
    )


def group_of_layers(groups: Sequence[KVGroup]) -> tuple[int, ...]:
    """Of each layer of the model: the index of its group."""
    pairs = ((layer, index) for index, group in enumerate(groups) for layer in group.layers)
    return tuple(index for _, index in sorted(pairs))
