"""Tables as they stand in docs/quantization.md."""

import math
from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """One line each, under the titles."""
    head, *lines = ["| " + " | ".join(cells) + " |" for cells in (titles, *rows)]
    return "\n".join([head, "|" + "---|" * len(titles), *lines])


def perplexity(number: float) -> str:
    """Four digits, or all before the point."""
    return f"{number:.{max(0, 3 - int(math.log10(number)))}f}"


def share(number: float) -> str:
    """In per cent."""
    return f"{100 * number:.1f} %"
