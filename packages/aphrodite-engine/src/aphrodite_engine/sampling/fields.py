"""What a declared field is: type, bounds, default, documentation; and the one check of values.

Stages and `SamplingParams` declare fields as annotated attributes with bounds of annotated_types
and a docstring below each. The wire schema, the client's keywords and the checks are read from
that. Knows nothing of tensors.
"""

import ast
import inspect
import math
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from annotated_types import Ge, Gt, Le, Lt

from aphrodite_engine.errors import RequestError

Bound = Ge | Gt | Le | Lt
_LARGEST_INTEGER = 2**63 - 1
LARGEST = 3.4e38
"""Of float32."""
_WORDS: Final = types.MappingProxyType(
    {float: "number", int: "integer", bool: "boolean", str: "string", type(None): "null"}
)


@dataclass(frozen=True, slots=True)
class _Names:
    """Marks a number that names a token of the vocabulary, unlike others with the same bounds."""


TokenId = Annotated[int, Ge(0), _Names()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One declared field."""

    name: str
    annotation: Any
    """As declared, bounds included; pydantic understands it."""
    default: Any
    doc: str

    @property
    def type(self) -> Any:
        """The annotation less bounds and None: float, int, bool, str, tuple[…] or dict[…]."""
        return _declaration(self.annotation).kind

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """Of a number."""
        return _declaration(self.annotation).bounds

    @property
    def lists_tokens(self) -> bool:
        """A tuple of token ids, or a mapping from them."""
        return get_origin(self.type) in (tuple, dict) and get_args(self.type)[0] == TokenId

    @property
    def is_number(self) -> bool:
        """A column of the batch."""
        return self.type in (bool, int, float)

    @property
    def range(self) -> str:
        """The bounds in words; empty: any."""
        return _words(self.bounds)

    @property
    def wanted(self) -> str:
        """Type and bounds in words."""
        return _wanted(self.type, self.bounds)


@cache
def fields_of(cls: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The fields of a struct class, in order of declaration."""
    annotations = get_type_hints(cls, include_extras=True)
    docs = _attribute_docs(cls)
    return tuple(
        Field(
            name=field.name,
            annotation=annotations[field.name],
            default=_default(field),
            doc=docs.get(field.name) or inspect.cleandoc(cls.__doc__ or ""),
        )
        for field in msgspec.structs.fields(cls)
    )


def check_struct(struct: msgspec.Struct) -> None:
    """Compare every field with its declaration.

    Raises:
        RequestError: see `check_value`.
    """
    for field in fields_of(type(struct)):
        check_value(field.name, getattr(struct, field.name), field.annotation)


def check_tokens(struct: msgspec.Struct, vocabulary: int) -> None:
    """Compare every declared `TokenId` with the vocabulary.

    Raises:
        RequestError: an id that is no token; names field and id.
    """
    for field in _token_fields(type(struct)):
        for token in _tokens_in(getattr(struct, field.name), field.annotation):
            if token >= vocabulary:
                raise RequestError(
                    f"{field.name} names token {token}, but the vocabulary ends at "
                    f"{vocabulary - 1}",
                    field.name,
                )


@cache
def _token_fields(cls: type[msgspec.Struct]) -> tuple[Field, ...]:
    """Those that can hold a `TokenId`: few, and every request is checked."""
    return tuple(field for field in fields_of(cls) if _holds_tokens(field.annotation))


def _holds_tokens(annotation: Any) -> bool:
    if annotation == TokenId:
        return True
    return any(_holds_tokens(part) for part in _declaration(annotation).arguments)


def _tokens_in(value: Any, annotation: Any) -> Iterator[int]:
    """Values that are declared as `TokenId`, at any depth of tuples, or as keys of a mapping."""
    declared = _declaration(annotation)
    if annotation == TokenId:
        yield value
    elif declared.origin is dict and declared.arguments[0] == TokenId:
        yield from value
    elif declared.origin is tuple:
        for item, kind in _paired(value, declared.arguments):
            yield from _tokens_in(item, kind)


def _paired(values: Sequence[Any], arguments: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    """The items of a tuple, each with its annotation."""
    if arguments[-1] is Ellipsis:
        return zip(values, repeat(arguments[0]), strict=False)
    return zip(values, arguments, strict=True)


def check_value(name: str, value: object, annotation: Any) -> None:
    """Compare a value with its declaration.

    Raises:
        RequestError: wrong type, not finite, or out of range; names field, value and range.
    """
    declared = _declaration(annotation)
    if value is None and declared.optional:
        return
    if declared.origin is dict:
        _check_mapping(name, value, declared.arguments)
    elif declared.origin is tuple:
        _check_sequence(name, value, declared.arguments)
    elif declared.kind in (bool, int, float, str):
        _check_scalar(name, value, declared.kind, declared.bounds)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _check_scalar(name: str, value: object, kind: type, bounds: tuple[Bound, ...]) -> None:
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise RequestError(f"{name} must be {_wanted(kind, bounds)}, found {value!r:.60}", name)
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"{name} must be a finite number, found {value!r}", name)
    if not all(_holds(value, bound) for bound in bounds):
        raise RequestError(f"{name} must be {_words(bounds)}, found {value!r:.60}", name)
    if isinstance(value, int | float) and not _fits(value, kind, bounds):
        size = f"32 bits: up to {LARGEST}" if kind is float else "64 bits with a sign"
        raise RequestError(f"{name} must fit in {size}, found {value!r:.60}", name)
    if isinstance(value, str) and not _is_unicode(value):
        raise RequestError(f"{name} holds a lone surrogate, which is no text; leave it out", name)


def _fits(value: float, kind: type, bounds: tuple[Bound, ...]) -> bool:
    """Tensors can hold it: float32 or int64; an integer with a bound of its own may be larger."""
    if kind is float:
        return abs(value) <= LARGEST
    bounded = any(isinstance(bound, Le | Lt) for bound in bounds)
    return bounded or abs(value) <= _LARGEST_INTEGER


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_mapping(name: str, value: object, arguments: tuple[Any, ...]) -> None:
    if not isinstance(value, Mapping):
        raise RequestError(f"{name} must be a mapping, found {value!r}", name)
    for key, item in value.items():  # pyright: ignore[reportUnknownVariableType]
        _check_item(name, f"a key of {name}", key, arguments[0])  # pyright: ignore[reportUnknownArgumentType]
        _check_item(name, f"{name}[{key}]", item, arguments[1])  # pyright: ignore[reportUnknownArgumentType]


def _check_sequence(name: str, value: object, arguments: tuple[Any, ...]) -> None:
    if not isinstance(value, tuple):
        raise RequestError(f"{name} must be a tuple, found {value!r:.60}", name)
    items = cast("tuple[Any, ...]", value)
    if arguments[-1] is not Ellipsis and len(items) != len(arguments):
        raise RequestError(f"{name} must have {len(arguments)} items, found {value!r:.60}", name)
    for index, (item, kind) in enumerate(_paired(items, arguments)):
        _check_item(name, f"{name}[{index}]", item, kind)


def _check_item(field: str, where: str, value: object, annotation: Any) -> None:
    try:
        check_value(where, value, annotation)
    except RequestError as error:
        raise RequestError(str(error), field) from None


class _Declaration(NamedTuple):
    """An annotation, taken apart."""

    kind: Any
    """Less bounds and None."""
    bounds: tuple[Bound, ...]
    optional: bool
    """None is a value."""
    origin: Any
    """`tuple` or `dict`, if it is one of something."""
    arguments: tuple[Any, ...]


@cache
def _declaration(annotation: Any) -> _Declaration:
    union = get_origin(annotation) in (Union, types.UnionType)
    options = get_args(annotation) if union else (annotation,)
    kind = next(option for option in options if option is not type(None))
    bounds: tuple[Bound, ...] = ()
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
        bounds = tuple(mark for mark in marks if isinstance(mark, Bound))
    return _Declaration(kind, bounds, type(None) in options, get_origin(kind), get_args(kind))


def _holds(value: Any, bound: Bound) -> bool:
    match bound:
        case Ge(limit):
            return value >= limit
        case Gt(limit):
            return value > limit
        case Le(limit):
            return value <= limit
        case Lt(limit):
            return value < limit


def _words(bounds: tuple[Bound, ...]) -> str:
    return " and ".join(_word(bound) for bound in bounds)


def _word(bound: Bound) -> str:
    match bound:
        case Ge(limit):
            return f"at least {limit}"
        case Gt(limit):
            return f"above {limit}"
        case Le(limit):
            return f"at most {limit}"
        case Lt(limit):
            return f"below {limit}"


def type_words(kind: Any) -> str:
    """A declared type as JSON has it, in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind == TokenId:
        return "token id"
    if origin is Annotated:
        return type_words(arguments[0])
    if origin is tuple and Ellipsis in arguments:
        return f"list of {_plural(type_words(arguments[0]))}"
    if origin is tuple:
        return f"[{', '.join(type_words(each) for each in arguments)}]"
    if origin is dict:
        return f"map from {type_words(arguments[0])} to {type_words(arguments[1])}"
    if origin in (Union, types.UnionType):
        return " or ".join(type_words(each) for each in arguments)
    if origin is Literal:
        return " or ".join(f'"{each}"' for each in arguments)
    return _WORDS.get(kind) or str(kind)


def _plural(words: str) -> str:
    if words.startswith("["):
        return words
    if words.startswith("list"):
        return f"lists{words.removeprefix('list')}"
    return " or ".join(f"{word}s" for word in words.split(" or "))


def _wanted(kind: Any, bounds: tuple[Bound, ...]) -> str:
    """A value of a type and within bounds, in words."""
    words = type_words(kind)
    value = "true or false" if kind is bool else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
    return f"{value}, {_words(bounds)}" if bounds else value


def _attribute_docs(cls: type) -> dict[str, str]:
    """Docstrings that stand below attributes; they exist in the source alone."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for above, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name):
            text = below.value if isinstance(below, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                docs[above.target.id] = inspect.cleandoc(text.value)
    return docs
