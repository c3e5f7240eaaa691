"""Keep files, functions and classes small; print the size of every package.

Exit 1 names each offender: files over 400 lines, functions over 60 without their signature, kernels
over 80 (no record can be passed to a Triton function, so its calls take a line for each argument),
classes over 300 that are more than fields, and the module names that collect what has no home.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE, FUNCTION, KERNEL, CLASS = 400, 60, 80, 300
HOMELESS = {"utils.py", "helpers.py", "common.py", "misc.py", "util.py"}
ROOT = Path(__file__).resolve().parent.parent


def offences(path: Path) -> Iterator[str]:
    """What is too long, or badly named, in one source file."""
    source = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT)
    lines = source.count("\n")
    if path.name in HOMELESS:
        yield f"{name}: a module needs a noun of its own, not {path.stem!r}"
    if lines > FILE:
        yield f"{name}: {lines} lines, at most {FILE}"
    if path.suffix != ".py":
        return
    for node in ast.walk(ast.parse(source)):
        length, most = size(node)
        if length > most:
            place = f"{name}:{getattr(node, 'lineno', 0)}: {getattr(node, 'name', '')}"
            yield f"{place} has {length} lines, at most {most}"


def size(node: ast.AST) -> tuple[int, int]:
    """Lines of a function or class, and how many it may have; of anything else, nothing."""
    if isinstance(node, ast.ClassDef):
        only_fields = all(isinstance(part, ast.AnnAssign | ast.Expr) for part in node.body)
        return _end(node) - node.lineno + 1, FILE if only_fields else CLASS
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        is_kernel = any("triton.jit" in ast.unparse(mark) for mark in node.decorator_list)
        return _end(node) - node.body[0].lineno + 1, KERNEL if is_kernel else FUNCTION
    return 0, 0


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def sources(package: Path) -> list[Path]:
    """Python and C++ sources that ship in a package."""
    found = [*package.glob("src/**/*.py"), *package.glob("csrc/**/*.[ch]*")]
    return sorted(found)


def main() -> int:
    """Print the table; 1 if anything offends."""
    failed = False
    print(f"{'package':20} {'files':>6} {'lines':>7} {'longest':>8}")
    for package in sorted((ROOT / "packages").iterdir()):
        files = sources(package)
        lengths = [path.read_text(encoding="utf-8").count("\n") for path in files]
        print(f"{package.name:20} {len(files):6} {sum(lengths):7} {max(lengths, default=0):8}")
        for path in files:
            for offence in offences(path):
                failed = True
                print(f"  {offence}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
