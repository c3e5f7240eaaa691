"""Whether checkpoints are sound and answer: each is verified, served and asked one question.

    python3 -m uv run python benchmarks/quality/answers.py NAME=PATH [...] [--output FILE]

For each: `aphrodite inspect PATH --verify`, then `aphrodite run PATH` and one chat request, greedy.
Prints a table as Markdown when all are done, each row as JSON before; exit code 1 if a checkpoint
has a problem, does not start or does not answer. `--expect` is looked for in every answer. Asked
only for the capital of France, SmolLM2-135M's original begins its answer with "The", "L" or "La"
(15, 14 and 10 %), and with one of the latter two there is no answer: rounding alone decides.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from socket import socket

import markdown

QUESTION = "What is the capital of France? Answer in one English sentence."
TOKENS = 24
PROGRAM = str(Path(sys.executable).with_name("aphrodite"))
PATIENCE = 300.0
"""Seconds that a server has to start, and an answer to come."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=PATH")
    parser.add_argument("--expect", default="Paris", help="what an answer must contain")
    parser.add_argument("--output", type=Path, help="a JSON file that rows are added to")
    options = parser.parse_args()
    rows: dict[str, dict[str, str | bool]] = {}
    for name, _, path in (one.partition("=") for one in options.checkpoints):
        problems, answer = verified(path), answered(path)
        good = not problems and options.expect in answer
        rows[name] = {"problems": problems, "answer": answer, "good": good}
        print(json.dumps({name: rows[name]}), file=sys.stderr, flush=True)
        if options.output is not None:
            record(options.output, name, rows[name])
    cells = [
        [name, str(row["problems"] or "sound"), str(row["answer"])] for name, row in rows.items()
    ]
    print(markdown.table(["checkpoint", "verified", "answer"], cells))
    return 0 if all(row["good"] for row in rows.values()) else 1


def verified(path: str) -> str:
    """What `inspect --verify` has against a checkpoint; empty: nothing."""
    command = [PROGRAM, "inspect", path, "--verify", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    try:
        return "; ".join(json.loads(done.stdout)["problems"])
    except (ValueError, KeyError):
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no output"


def answered(path: str) -> str:
    """What the checkpoint, served, says to the question; or why it does not."""
    with socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [PROGRAM, "run", path, "--max-model-len", "256"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        return ask(server, f"http://127.0.0.1:{port}/v1/chat/completions")
    finally:
        server.terminate()
        server.communicate()


def ask(server: "subprocess.Popen[str]", address: str) -> str:
    """The answer, as soon as the server listens."""
    said = [{"role": "user", "content": QUESTION}]
    data = json.dumps({"messages": said, "temperature": 0, "max_tokens": TOKENS}).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return json.load(response)["choices"][0]["message"]["content"].replace("\n", " ")
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code}: {error.read().decode()}"
        except OSError:
            time.sleep(0.5)
    return "the server ended" if server.poll() is not None else "no answer in time"


def record(file: Path, name: str, row: dict[str, str | bool]) -> None:
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(found | {name: row}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
