"""Named sets of sampler fields that a server keeps: YAML files, one set each.

They are read and checked once, at start. What a request says itself goes before its preset, field
by field; the forced preset goes before everything. What the model's makers recommend comes last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml
from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import filled, parameters, stages_from
from aphrodite_engine.sampling.params import SamplingParams

from aphrodite_server.settings import Settings

Fields = Mapping[str, Any]
_SUFFIXES = (".yaml", ".yml")


class PresetError(Exception):
    """A preset cannot be used; the message is for whoever runs the server."""


@dataclass(frozen=True)
class Presets:
    """The sets of a server."""

    sets: Mapping[str, Fields] = field(default_factory=dict[str, Fields])
    """By name; fields by their own names, not by aliases."""
    default: str | None = None
    """Of requests that name none."""
    forced: str | None = None
    """Goes before what requests say."""
    model: Fields = field(default_factory=dict[str, Any])
    """Defaults of the model, behind everything; fields by their own names."""

    def fill(self, given: Fields) -> dict[str, Any]:
        """The fields of a request, completed.

        Raises:
            RequestError: it names a preset that is not there.
        """
        name = self._named(given) or self.default
        whole = filled(filled(given, self.sets[name] if name else {}), self.model)
        return filled(self._forced_fields, whole)

    @property
    def _forced_fields(self) -> Fields:
        return {} if self.forced is None else self.sets[self.forced]

    def fill_search(self, given: Fields) -> dict[str, Any]:
        """The fields of a beam search and of the preset it names, without anybody's defaults.

        Raises:
            RequestError: it names a preset that is not there, or the forced one is of draws.
        """
        try:
            SamplingParams(use_beam_search=True, stages=stages_from(self._forced_fields))
        except RequestError:
            raise RequestError(
                f"use_beam_search is not possible on this server, whose forced preset "
                f"{self.forced!r} says how tokens are drawn; leave it out",
                "use_beam_search",
            ) from None
        return Presets(self.sets, forced=self.forced).fill(given)

    def overruled(self, given: Fields) -> tuple[str, ...]:
        """Fields of a request that the forced preset makes void."""
        names = parameters()
        void = {names[name] for name in self._forced_fields}
        return tuple(sorted(name for name in filled(given, {}) if names.get(name) in void))

    def _named(self, given: Fields) -> str | None:
        name = given.get("preset")
        if not name:
            return None
        if name not in self.sets:
            has = ", ".join(self.sets) or "none; --sampler-presets names a folder of them"
            raise RequestError(
                f"preset {name!r:.60} does not exist; this server has {has}", "preset"
            )
        return name


def load_presets(settings: Settings) -> Presets:
    """Read the folder that the settings name.

    Raises:
        PresetError: folder, file or field is unusable; says which and why.
    """
    sets: dict[str, Fields] = {}
    for path in _files(settings.sampler_presets):
        if path.stem in sets:
            raise PresetError(f"{path}: there is another preset named {path.stem!r}; rename one")
        sets[path.stem] = _checked(path, _content(path))
    for flag, name in (
        ("--default-preset", settings.default_preset),
        ("--forced-preset", settings.forced_preset),
    ):
        if name is not None and name not in sets:
            has = ", ".join(sets) or "none; it names a folder of .yaml files, one for each preset"
            raise PresetError(f"{flag} {name}: no such preset; --sampler-presets has {has}")
    return Presets(sets, settings.default_preset, settings.forced_preset)


def _files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    except OSError as error:
        raise PresetError(
            f"--sampler-presets {folder}: {error.strerror}; give a folder of .yaml files, one for "
            "each preset"
        ) from None


def _content(path: Path) -> Fields:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PresetError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise PresetError(f"{path} is no valid YAML: {reason}") from None
    if not isinstance(content, dict):
        raise PresetError(f"{path} must map sampler fields to values, such as 'min_p: 0.05'")
    return cast("Fields", content)


def _checked(path: Path, content: Fields) -> Fields:
    for name in content:
        if name not in parameters():
            near = get_close_matches(str(name), parameters(), 1)
            known = ", ".join(sorted(parameters()))
            hint = f"did you mean {near[0]!r}?" if near else f"these are: {known}"
            raise PresetError(f"{path}: {name!r} is no sampler field; {hint}")
    try:
        stages_from(content)
    except RequestError as error:
        raise PresetError(f"{path}: {error}") from None
    return filled(content, {})
