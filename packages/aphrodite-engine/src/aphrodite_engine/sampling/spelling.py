"""What a field of a request says that has several names, or an empty value.

One rule for every field: null, "", [] and {} mean off, as if the field were not there; names of one
parameter may come together if they agree. Knows no field.
"""

from collections.abc import Mapping, Sized
from typing import TypeVar

from aphrodite_engine.errors import RequestError

T = TypeVar("T")


def is_empty(value: object) -> bool:
    """Null, or a text, list or object with nothing in it."""
    return value is None or (isinstance(value, Sized) and len(value) == 0)


def agreed(given: Mapping[str, T]) -> T | None:
    """The value that names of one parameter came with, none of them empty; None without names.

    Raises:
        RequestError: two differ; names both, and their values.
    """
    if not given:
        return None
    (first, value), *others = given.items()
    for name, other in others:
        if other != value:
            raise RequestError(
                f"{first} and {name} are the same parameter, found {value!r:.60} and "
                f"{other!r:.60}; send one",
                name,
            )
    return value
