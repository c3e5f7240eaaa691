"""`aphrodite inspect`: what a checkpoint holds, what it takes, and whether it is sound."""

import argparse
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aphrodite_engine.config import EngineConfig
from aphrodite_engine.loading.budget import size_text

from aphrodite_server.cli.ending import exit_code
from aphrodite_server.cli.flags import Parser, size

if TYPE_CHECKING:
    from aphrodite_engine.inspecting.report import Inspection, Kind, Memory, ModuleCheck

_WORST = 8


def main(arguments: Sequence[str]) -> int:
    """Inspect; 0: nothing is wrong."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _inspect(options))


def _inspect(options: argparse.Namespace) -> int:
    from aphrodite_engine.inspecting.facts import inspect_checkpoint
    from aphrodite_engine.loading.source import find_model_path

    path = find_model_path(options.model, options.revision, None)
    with _bar(shown=options.verify and not options.json) as bar:
        found = inspect_checkpoint(path, _config(options), bar if options.verify else None)
    print(_as_json(found) if options.json else as_text(found))
    return 1 if found.problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="aphrodite inspect",
        usage="aphrodite inspect MODEL [options]",
        description="Tell what a checkpoint holds, on which kernels it runs here and what it "
        "takes. Try: aphrodite inspect demo --verify",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="what `aphrodite run` takes")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="decode every weight and compare the product with the reference's; exit code 1 if "
        "something is wrong",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--kv-cache-dtype", default="auto", help="as of `aphrodite run`")
    parser.add_argument("--max-model-len", type=size, metavar="SIZE", help="as of `aphrodite run`")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a repository")
    return parser


def _config(options: argparse.Namespace) -> EngineConfig:
    return EngineConfig(
        model=options.model,
        device=options.device,
        kv_cache_dtype=options.kv_cache_dtype,
        max_model_len=options.max_model_len,
    )


@contextmanager
def _bar(*, shown: bool) -> Generator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(desc="verifying", leave=False, disable=None if shown else True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _as_json(found: "Inspection") -> str:
    import msgspec

    return json.dumps(msgspec.to_builtins(found), indent=2)


def as_text(found: "Inspection") -> str:
    """For a terminal."""
    known = found.model_type or "there is none for this"
    facts = [
        ("checkpoint", found.path),
        ("format", found.format if found.format == found.container else f"{found.format}, "
         f"{found.container}"),
        ("architecture", f"{found.architecture or 'not stated'} (model: {known})"),
        ("weights", f"{_count(found.weights)} in {found.tensors} tensors, "
         f"{size_text(found.nbytes)}, {found.bits:.2f} bits each"),
        ("backend", found.backend),
    ]  # fmt: skip
    parts = ["\n".join(f"{name:<13} {text}" for name, text in facts), _kinds(found.kinds)]
    if found.memory is not None:
        parts.append(_memory(found.memory))
    parts += [f"note: {note}" for note in found.notes]
    if found.checks is not None:
        parts.append(_checks(found.checks))
    parts += [f"wrong: {problem}" for problem in found.problems]
    return "\n\n".join(parts)


def _kinds(kinds: "Sequence[Kind]") -> str:
    rows = [("weight", "count", "shape", "stored", "bits", "size", "layout", "kernel")]
    for kind in kinds:
        shape = " x ".join(map(str, kind.shape)) or "1"
        cells = (kind.stored, f"{kind.bits:.2f}", size_text(kind.nbytes))
        rows.append(
            (kind.name, str(kind.count), shape, *cells, kind.layout or "-", kind.kernel or "-")
        )
    return _table(rows, right=(1, 4, 5))


def _memory(memory: "Memory") -> str:
    per_token = f"{memory.kv_per_token / 1024:.1f} KiB a token as {memory.kv_cache_dtype}"
    holds = f"{memory.kv_tokens} tokens: {per_token}"
    rows = [
        ("free memory", size_text(memory.free), ""),
        ("weights", size_text(memory.weights), ""),
        ("activations", size_text(memory.activations), ""),
        ("KV cache", size_text(memory.kv_cache), holds),
        ("context", str(memory.context), "tokens of one request"),
    ]
    return _table(rows, right=(1,))


def _checks(checks: "Sequence[ModuleCheck]") -> str:
    wrong = sum(check.problem is not None for check in checks)
    worst = sorted(checks, key=lambda check: check.error, reverse=True)[:_WORST]
    rows = [("worst product", "error"), *((each.module, f"{each.error:.2e}") for each in worst)]
    head = f"{len(checks)} modules decoded and multiplied, {wrong} wrong"
    return f"{head}\n{_table(rows, right=(1,))}"


def _table(rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """Columns aligned, those in `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def _count(number: int) -> str:
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.2f} {name}"
    return str(number)
