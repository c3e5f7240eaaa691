"""Rows of the tables in docs/quantization.md, from what run.py recorded.

    python3 benchmarks/quality/table.py NAME [...]

A NAME is one of a row, or begins several and ends in a star; rows are sorted by KL.
"""

import argparse
import json
import math
from fnmatch import fnmatchcase
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "results" / "quality"
MODEL = "SmolLM2-135M-Instruct.Q4_1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME")
    names = parser.parse_args().names
    rows = json.loads((RESULTS / f"{MODEL}.json").read_text())
    wanted = {
        name: row for name, row in rows.items() if any(fnmatchcase(name, one) for one in names)
    }
    for name, row in sorted(wanted.items(), key=lambda item: item[1]["divergence"]):
        digits = max(0, 3 - int(math.log10(row["perplexity"])))
        print(
            f"| {name} | {row['perplexity']:.{digits}f} | {row['divergence']:.4f} "
            f"| {row['same_likeliest']:.1%} | {row['megabytes']:.0f} |".replace("%", " %")
        )


if __name__ == "__main__":
    main()
