"""Keep files, functions and classes small; print the size of every package.

Exit 1 names each offender: files over 400 lines, functions over 60, classes over 300, and the
module names that collect what has no home.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE, FUNCTION, CLASS = 400, 60, 300
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
        limit = {ast.FunctionDef: FUNCTION, ast.AsyncFunctionDef: FUNCTION, ast.ClassDef: CLASS}
        most = limit.get(type(node))
        if most and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > most:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines, at most {most}"


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
