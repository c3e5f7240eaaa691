"""What each kind of KV cache costs in quality: perplexity of a fixed text, through the engine.

    python benchmarks/quality/kv.py [MODEL ...] [--tokens 4096] [--context 1024] [--kinds int8 int4]

The text is the repository's own documentation, in pieces of `context` tokens, each without what
came before it; surprise is read from the prompt's logprobs. Every kind is compared with float32,
token by token: the change of the mean surprise, its standard error, and how many tokens out of a
hundred were less likely by more than a tenth. The JSON goes to benchmarks/results/quality/.
"""

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from aphrodite_engine import LLM, SamplingParams
from aphrodite_engine.config import KV_DTYPE_NAMES

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "quality"
TEXTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "docs/samplers.md")
EXACT = "float32"
KINDS = tuple(kind for kind in KV_DTYPE_NAMES if kind not in (EXACT, "bf16", "fp8"))
_MUCH = math.log(1 / 0.9)


def surprises(model: str, kind: str, tokens: int, context: int) -> list[float]:
    """-log p of every token but the first of each piece, in nats."""
    with LLM(model, kv_cache_dtype=kind, max_num_seqs=1, max_model_len=context + 1) as engine:
        text = "\n\n".join((ROOT / name).read_text(encoding="utf-8") for name in TEXTS)
        begin = list(engine.tokenizer.special.before)
        ids = engine.tokenizer.encode(text, add_special=False, parse_special=False)[:tokens]
        fresh = context - len(begin)
        pieces = [begin + ids[start : start + fresh] for start in range(0, len(ids), fresh)]
        asked = SamplingParams(max_tokens=1, prompt_logprobs=0)
        made = engine.generate(pieces, asked, progress=False)
    return [-score.logprob for one in made for score in one.prompt_logprobs]


def compared(found: Sequence[float], exact: Sequence[float]) -> dict[str, float]:
    """A kind of cache beside the exact one."""
    change = [a - b for a, b in zip(found, exact, strict=True)]
    return {
        "perplexity": math.exp(statistics.fmean(found)),
        "change_percent": 100 * math.expm1(statistics.fmean(change)),
        "standard_error_percent": 100 * statistics.stdev(change) / len(change) ** 0.5,
        "tokens_much_less_likely_percent": 100 * sum(x > _MUCH for x in change) / len(change),
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """As Markdown."""
    lines = ["| cache | perplexity | change | tokens less likely by a tenth |", "|---|---|---|---|"]
    lines += [
        f"| `{kind}` | {row['perplexity']:.3f} | {row['change_percent']:+.2f} % "
        f"± {row['standard_error_percent']:.2f} | {row['tokens_much_less_likely_percent']:.1f} % |"
        for kind, row in rows.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["demo"])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for model in options.models:
        exact = surprises(model, EXACT, options.tokens, options.context)
        rows = {EXACT: compared(exact, exact)}
        for kind in options.kinds:
            found = surprises(model, kind, options.tokens, options.context)
            rows[kind] = compared(found, exact)
            print(kind, rows[kind], flush=True)
        name = Path(model).stem
        record = {"model": name, "context": options.context, "tokens": len(exact), "kinds": rows}
        (RESULTS / f"kv-{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        print(f"{name}, {len(exact)} tokens\n\n{table(rows)}")


if __name__ == "__main__":
    main()
