"""What a field of a request says that has several names or an empty value, or a list as a text.

One rule for every field: null, "", [] and {} mean off, as if the field were not there; names of one
parameter may come together if they agree. Knows no field.
"""

import json
import re
from collections.abc import Mapping, Sized
from typing import TypeVar, cast

from aphrodite_engine.errors import RequestError

T = TypeVar("T")
_BARE_QUOTE = re.compile(r'(?<!\\)"')


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


def items_in(name: str, written: str) -> object:
    """The list that a text holds: JSON, whose brackets may be missing.

    Raises:
        RequestError: it is no JSON.
    """
    text = written.strip()
    try:
        return json.loads(text if text[:1] in ("[", "{") else f"[{text}]", strict=False)
    except ValueError:
        raise RequestError(
            f"{name} must be a list, or one written as JSON with or without brackets, found "
            f"{written!r:.60}",
            name,
        ) from None


def texts_in(name: str, written: str) -> object:
    """The same for a list of texts, which may also stand bare between commas, with JSON's escapes.

    A bare list does not begin with a quotation mark or a bracket.

    Raises:
        RequestError: it is neither.
    """
    if written.lstrip()[:1] not in ("[", "{", '"'):
        bare = (_BARE_QUOTE.sub('\\"', part) for part in written.split(","))
        written = ",".join(f'"{part}"' for part in bare)
    return items_in(name, written)


def seed_in(value: object) -> object:
    """A seed; -1 is none."""
    return None if value == -1 else value


def stops_in(value: object) -> object:
    """Stop strings, of which a single one may come alone; empty ones ask for nothing."""
    if not isinstance(value, str | list | tuple):
        return value
    texts = [value] if isinstance(value, str) else cast("list[object]", value)
    return [one for one in texts if one != ""]
