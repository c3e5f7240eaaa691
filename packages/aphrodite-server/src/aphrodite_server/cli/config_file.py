"""--config: a YAML file with the names of flags as keys."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The flags given; those of the command line go before those of the file."""
    options = parser.parse_args(arguments)
    if options.config is None:
        return options
    tokens = _tokens(parser, Path(options.config))
    return parser.parse_args(arguments, parser.parse_args(tokens))


def _tokens(parser: argparse.ArgumentParser, path: Path) -> list[str]:
    """The file as a command line, so that both are read by the same rules."""
    known = {
        option.lstrip("-"): action
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and action.dest not in ("help", "config")
    }
    tokens: list[str] = []
    for key, value in _content(parser, path).items():
        name = str(key).replace("_", "-")
        if name not in known:
            parser.error(f"{path}: {key!r} is no flag of {parser.prog}")
        tokens += _flag_tokens(known[name], name, value)
    return tokens


def _content(parser: argparse.ArgumentParser, path: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"cannot read {path}: {error.strerror}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        parser.error(f"{path} is no valid YAML: {' '.join(str(error).split())}")
    if content is None:
        return {}
    if not isinstance(content, dict):
        parser.error(f"{path} must map flags to values, such as 'port: 2242'")
    return cast("dict[Any, Any]", content)


def _flag_tokens(action: argparse.Action, name: str, value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(action, argparse.BooleanOptionalAction) and isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    if action.nargs is None and len(values) == 1:
        return [f"--{name}={values[0]}"]  # also for values that begin with a dash
    return [f"--{name}", *map(str, values)]
