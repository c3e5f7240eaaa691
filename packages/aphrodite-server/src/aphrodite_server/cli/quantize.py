"""`aphrodite quantize`: write a quantised checkpoint of a model."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aphrodite_server.cli.ending import exit_code
from aphrodite_server.cli.flags import Parser

if TYPE_CHECKING:
    from aphrodite_engine.quantizing.report import Report

_SHOWN = 5


def main(arguments: Sequence[str]) -> int:
    """Quantise; the exit code."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _quantize(options), "stopped; the same command goes on from here")


def _quantize(options: argparse.Namespace) -> int:
    from aphrodite_engine.quantizing.run import quantize_model

    with _Bar(shown=not options.json) as bar:
        report = quantize_model(_job(options), bar)
    print(_as_json(report) if options.json else _as_text(report))
    return 0


class _Bar:
    """One bar for each thing that is done."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._label = ""
        self._bar = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, label: str, done: int, total: int) -> None:
        """Show how far it is."""
        from tqdm import tqdm

        if label != self._label:
            if self._bar is not None:
                self._bar.close()
            self._label = label
            self._bar = tqdm(total=total, desc=label, disable=not self._shown)
        assert self._bar is not None, "made with its label"
        self._bar.update(done - self._bar.n)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="aphrodite quantize",
        usage="aphrodite quantize MODEL --format FORMAT --output DIR [options]",
        description="Write a quantised checkpoint. Try: "
        "aphrodite quantize demo --format fp8 --output demo-fp8",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="what `aphrodite run` takes")
    parser.add_argument(
        "--format", required=True, help="what to write; an unknown one lists those that there are"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="directory to write")
    parser.add_argument("--bits", type=number, metavar="N", help="of a weight")
    parser.add_argument(
        "--group-size", type=int, metavar="N", help="input features of one scale; -1: all of them"
    )
    parser.add_argument(
        "--symmetric", action=argparse.BooleanOptionalAction, help="without zero points"
    )
    parser.add_argument(
        "--act-order",
        action=argparse.BooleanOptionalAction,
        help="quantise the most active input features first",
    )
    parser.add_argument(
        "--calibration", metavar="FILE", help="text in UTF-8 (default: one that comes with it)"
    )
    parser.add_argument(
        "--samples", type=int, default=32, metavar="N", help="pieces of it (default %(default)s)"
    )
    parser.add_argument(
        "--length", type=int, default=512, metavar="N", help="tokens of each (default %(default)s)"
    )
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a repository")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="remove what DIR holds")
    parser.add_argument(
        "--no-evaluate",
        dest="evaluate",
        action="store_false",
        help="do not measure perplexity before and after",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def number(text: str) -> float:
    """An argument's type: a whole number stays one."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _job(options: argparse.Namespace):  # noqa: ANN202 - its type is imported with the engine
    from aphrodite_engine.quantizing.job import Job

    given = {name: value for name, value in vars(options).items() if name != "json"}
    return Job(**given)


def _as_json(report: "Report") -> str:
    import msgspec

    return json.dumps(msgspec.to_builtins(report), indent=2)


def _as_text(report: "Report") -> str:
    worst = sorted(report.modules, key=lambda record: record.error, reverse=True)[:_SHOWN]
    lines = [
        f"{report.output}: {report.format}, {len(report.modules)} projections, "
        f"{report.bytes_before / 1e6:.1f} MB -> {report.bytes_after / 1e6:.1f} MB "
        f"in {report.seconds:.0f} s"
        + (f" ({report.resumed} blocks were there already)" if report.resumed else ""),
        f"relative error of the weights: mean {report.mean_error:.4f}; largest:",
        *(f"  {record.error:.4f}  {record.module}" for record in worst),
    ]
    if report.perplexity is not None:
        measured = report.perplexity
        lines.append(
            f"perplexity on {measured.tokens} tokens of held-out text: "
            f"{measured.before:.3f} before, {measured.after:.3f} after"
        )
    lines.append(f"serve it: aphrodite run {report.output}")
    return "\n".join(lines)
