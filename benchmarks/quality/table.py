"""The tables in docs/quantization.md, from what run.py recorded.

    python3 benchmarks/quality/table.py NAME [...]

A NAME is one of a row, or begins several and ends in a star; rows are sorted by KL.
"""

import argparse
import json
from fnmatch import fnmatchcase
from pathlib import Path

import markdown

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
    cells = [
        [
            name,
            markdown.perplexity(row["perplexity"]),
            f"{row['divergence']:.4f}",
            markdown.share(row["same_likeliest"]),
            f"{row['megabytes']:.0f}",
        ]
        for name, row in sorted(wanted.items(), key=lambda item: item[1]["divergence"])
    ]
    print(markdown.table(["format", "perplexity", "KL", "same token", "MB"], cells))


if __name__ == "__main__":
    main()
