"""The stages that are present, and the road from wire fields to stages.

A stage is present when its file is in stages/; nothing else names it. Knows no tensors.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import msgspec

from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling import stages as stages_package
from aphrodite_engine.sampling.fields import Field, check_value, fields_of
from aphrodite_engine.sampling.priority import Places
from aphrodite_engine.sampling.spelling import agreed, is_empty
from aphrodite_engine.sampling.stage import Stage


@cache
def stages() -> tuple[type[Stage], ...]:
    """Every stage that is present, in default order."""
    found: list[type[Stage]] = []
    for module_info in pkgutil.iter_modules(stages_package.__path__):
        module = importlib.import_module(f"{stages_package.__name__}.{module_info.name}")
        found += [
            item
            for item in vars(module).values()
            if isinstance(item, type)
            and issubclass(item, Stage)
            and item.__module__ == module.__name__
        ]
    return tuple(sorted(found, key=lambda stage: stage.order))


class StageField(msgspec.Struct, frozen=True, kw_only=True):
    """A wire field and where it belongs."""

    stage: type[Stage]
    field: Field
    aliases: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.field.name


@cache
def stage_fields() -> tuple[StageField, ...]:
    """Every wire field of every stage: what schemas, the client and documentation are made from."""
    return tuple(
        StageField(stage=stage, field=field, aliases=stage.aliases.get(field.name, ()))
        for stage in stages()
        if stage.wire
        for field in fields_of(stage)
        if field.name not in stage.hidden
    )


def stages_from(fields: Mapping[str, Any]) -> tuple[Stage, ...]:
    """Make stages of wire fields; other fields are left alone.

    They stand in the order of `sampler_priority`, or else in the default order. None, "", [] and
    {} mean off. A field and its aliases may come together if they agree. A stage that would be the
    identity is left out.

    Raises:
        RequestError: a value has the wrong type or is out of range, aliases disagree, or the order
            names what is no stage.
    """
    chosen: dict[type[Stage], dict[str, object]] = {}
    for declared in stage_fields():
        value = _given(fields, declared)
        if value is not None:
            chosen.setdefault(declared.stage, {})[declared.name] = value
    made = (stage(**values) for stage, values in chosen.items())
    active = sorted((stage for stage in made if stage.active), key=lambda stage: stage.order)
    return places().arrange(fields, active)


@cache
def places() -> Places:
    """What the stages are called in orders."""
    return Places(stages())


def _given(fields: Mapping[str, Any], declared: StageField) -> object:
    """The value of a field under any of its names, or None."""
    return agreed(
        {
            name: _accept(name, fields[name], declared)
            for name in (declared.name, *declared.aliases)
            if name in fields and not _is_off(fields[name], declared)
        }
    )


def _is_off(value: object, declared: StageField) -> bool:
    if not is_empty(value):
        return False
    # Its empty list says something; null and {} do not.
    return declared.name not in declared.stage.empty_values or value is None or value == {}


def _accept(name: str, value: object, declared: StageField) -> object:
    """Wire value to declared type (JSON knows no tuples and no integer keys), checked."""
    try:
        read = declared.stage.read(declared.name, value)
        typed = msgspec.convert(read, declared.field.type, str_keys=True)
    except msgspec.ValidationError as error:
        raise RequestError(f"{name}: {error}, found {value!r:.60}", name) from None
    except UnicodeEncodeError:
        raise RequestError(
            f"{name} holds a lone surrogate, which is no text; leave it out", name
        ) from None
    if typed not in declared.stage.off_values.get(declared.name, ()):
        check_value(name, typed, declared.field.annotation)
    return typed


if TYPE_CHECKING:
    AnyStage: TypeAlias = Stage
else:
    AnyStage = Union[stages()]  # noqa: UP007 - made at run time: what msgspec decodes by tag
