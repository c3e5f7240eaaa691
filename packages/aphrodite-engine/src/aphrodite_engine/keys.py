"""Reading a model's configuration: typed look-ups in a JSON object, with errors that name the key.

It knows what a Hugging Face `config.json` looks like, and nothing of any model.
"""

from collections.abc import Mapping
from typing import Any

from aphrodite_engine.errors import ModelError


class Keys:
    """A JSON object of some origin; a key that is null counts as absent."""

    def __init__(self, values: Mapping[str, Any], origin: str) -> None:
        self._values = values
        self.origin = origin
        """Where the object comes from, for messages."""

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "a whole number")
        return value

    def positive(self, key: str, default: int | None = None, *, most: int = 2**31 - 1) -> int:
        """A whole number from 1 to `most`."""
        value = self.integer(key, default)
        if not 0 < value <= most:
            raise self.wrong(key, f"a whole number from 1 to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "a number")
        try:
            return float(value)
        except OverflowError as error:
            raise self.wrong(key, "a number of at most 308 digits") from error

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self._value(key, None)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):  # pyright: ignore[reportUnknownVariableType]
            raise self.wrong(key, "a list of strings")
        return tuple(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers."""
        value = self._value(key, None)
        if not isinstance(value, list) or not all(isinstance(item, int | float) for item in value):  # pyright: ignore[reportUnknownVariableType]
            raise self.wrong(key, "a list of numbers")
        return tuple(float(item) for item in value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]

    def value(self, key: str) -> object:
        """Whatever stands there; None if absent."""
        return self._values.get(key)

    def nested(self, key: str) -> "Keys":
        """An object within the object."""
        value = self._value(key, None)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Keys(value, f"{self.origin}, {key}")  # pyright: ignore[reportUnknownArgumentType]

    def wrong(self, key: str, expected: str) -> ModelError:
        """The error for a key whose value is not what it must be."""
        return ModelError(f"{self.origin}: {key} is {self._values.get(key)!r}, not {expected}")

    def _value(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ModelError(f"{self.origin}: the key {key} is missing")
        return value
