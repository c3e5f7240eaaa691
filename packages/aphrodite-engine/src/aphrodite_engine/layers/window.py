"""Which layers there are, and which of them see a sliding window only."""

from collections.abc import Callable

from aphrodite_engine.keys import Keys

MOST_LAYERS = 1000
"""More in a configuration is a mistake, and must not cost memory before weights are missed."""
_SLIDING, _FULL = "sliding_attention", "full_attention"


def read_windows(keys: Keys, layers: int, slides: Callable[[int], bool]) -> tuple[int | None, ...]:
    """The window of each layer; `slides` tells for a layer where `layer_types` is absent."""
    if "sliding_window" not in keys:
        return (None,) * layers
    window = keys.positive("sliding_window")
    if "layer_types" not in keys:
        return tuple(window if slides(layer) else None for layer in range(layers))
    types = keys.texts("layer_types")
    if len(types) != layers or not set(types) <= {_SLIDING, _FULL}:
        raise keys.wrong("layer_types", f"a list of {layers} times {_SLIDING} or {_FULL}")
    return tuple(window if kind == _SLIDING else None for kind in types)
