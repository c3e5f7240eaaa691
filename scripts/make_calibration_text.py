"""Write the text that quantisers are calibrated and measured with: what the demo model says.

    python3 -m uv run python scripts/make_calibration_text.py

Nothing in it was copied: the demo model answers fixed questions with fixed seeds, then come this
repository's own pages. Every piece of it is a paragraph of its own.
"""

from pathlib import Path

from aphrodite_engine import LLM, SamplingParams
from aphrodite_engine.sampling.stages.min_p import MinP
from aphrodite_engine.sampling.stages.temperature import Temperature

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "packages/aphrodite-engine/src/aphrodite_engine/quantizing/calibration.txt"
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
KINDS = (
    "Explain {} to a curious child.",
    "Write a short story about {}.",
    "List ten facts about {}.",
    "Two friends argue about {}. Write their dialogue.",
    "Write a Python program that has to do with {}.",
    "How would you plan a week around {}?",
)
TOPICS = (
    "the sea", "bicycles", "bread", "the Moon", "libraries", "volcanoes", "chess", "honeybees",
    "trains", "gardens", "clocks", "rivers", "music", "maps", "winter", "numbers",
)  # fmt: skip


def main() -> None:
    questions = [kind.format(topic) for topic in TOPICS for kind in KINDS]
    params = [
        SamplingParams(
            max_tokens=320, seed=seed, stages=(Temperature(temperature=0.8), MinP(min_p=0.05))
        )
        for seed in range(len(questions))
    ]
    with LLM("demo") as llm:
        said = llm.chat([[{"role": "user", "content": one}] for one in questions], params)
    pairs = zip(questions, said, strict=True)
    answers = [f"{question}\n\n{one.text.strip()}" for question, one in pairs]
    pages = [(ROOT / page).read_text(encoding="utf-8").strip() for page in PAGES]
    TARGET.write_text("\n\n".join([*answers, *pages]) + "\n", encoding="utf-8")
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
