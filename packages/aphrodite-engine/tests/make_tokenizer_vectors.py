"""Writes tests/data/tokenizers/*.json: reduced vocabularies, texts, and the ids of llama.cpp.

Usage: make_tokenizer_vectors.py <llama.cpp>/models <python with llama-cpp-python> <extra.gguf>…

For each `ggml-vocab-*.gguf` with vectors beside it, and for each extra GGUF (a real model), the
file keeps the tokens and merges that the texts can touch, under new ids, with the old ones beside
them. The full vocabulary and the reduced one are both checked before a file is written. Expected
ids come from the `.out` file; for the further texts, from llama-cpp-python.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_engine.text.gguf_vocabulary import BYTE, USER_DEFINED
from aphrodite_engine.text.pre_tokenizer import pre_tokenizer, rule_named
from aphrodite_engine.text.vocabulary import SPACE
from aphrodite_quant.containers.gguf import open_gguf
from gguf import GGUFWriter

TARGET = Path(__file__).parent / "data" / "tokenizers"
WORDS = [
    "the",
    "quick",
    "Fox's",
    "don't",
    "WE'LL",
    "3.14",
    "1234567",
    "café",
    "Straße",
    "ÉCOLE",
    "Привет",
    "你好世界",
    "東京",
    "こんにちは",
    "안녕하세요",
    "สวัสดี",
    "नमस्ते",
    "தமிழ்",
    "שלום",
    "مرحبا",
    "👍",
    "👨\u200d👩\u200d👧",
    "🇩🇪",
    "❤️",
    "\u3000",
    "\uff01",
    "\u2018q\u2019",
    "—",
    "€",
    "#tag",
    "camelCase",
    "i++",
    "!=",
    "=>",
    "//",
    "<html>",
    "x**2",
    "½",
    "Ⅷ",
    "٣",
    "ǅ",
    "é",
    "\ufeff",
    "\U0001d4b3",
    "▁",
    "<0x0A>",
    "aaaaaaa",
    "======",
    "...",
    "\u2028",
    "<s>",
    "<unk>",
]
GAPS = [" ", " ", " ", "", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n", "\n ", "        "]
ORACLE = """
import json, sys
from llama_cpp import Llama
llama = Llama(sys.argv[1], vocab_only=True, verbose=False)
texts = json.load(sys.stdin)
json.dump([llama._model.tokenize(text.encode(), False, False) for text in texts], sys.stdout)
"""


def further_texts(count: int) -> list[str]:
    draw = random.Random(2242)
    texts = []
    for _ in range(count):
        words = draw.randint(1, 8)
        texts.append("".join(draw.choice(WORDS) + draw.choice(GAPS) for _ in range(words)))
    return texts


def vectors(path: Path) -> tuple[list[str], list[list[int]]]:
    texts = path.with_name(path.name + ".inp").read_bytes().decode()
    ids = path.with_name(path.name + ".out").read_text().split("\n")
    return texts.split("\n__ggml_vocab_test__\n"), [[int(i) for i in row.split()] for row in ids]


def oracle(python: str, path: Path, texts: list[str]) -> list[list[int]]:
    command = [python, "-c", ORACLE, str(path)]
    run = subprocess.run(
        command, input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def strings_inside(metadata: dict, texts: list[str]) -> set[str]:
    """All substrings of what the model merges, as the vocabulary spells them."""
    longest = max(len(token) for token in metadata["tokenizer.ggml.tokens"])
    if metadata["tokenizer.ggml.model"] == "gpt2":
        cut = pre_tokenizer(rule_named(metadata["tokenizer.ggml.pre"]))
        words = {word for text in texts for word, _ in cut.pre_tokenize_str(text)}
    else:
        words = {SPACE + text.replace(" ", SPACE) for text in texts}
    return {
        word[start:end]
        for word in words
        for start in range(len(word))
        for end in range(start + 1, min(len(word), start + longest) + 1)
    }


def reduced(metadata: dict, texts: list[str]) -> tuple[dict, list[int]]:
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    inside = strings_inside(metadata, texts)
    roles = {v for k, v in metadata.items() if k.endswith("_token_id")}
    keep = [
        i
        for i, token in enumerate(tokens)
        if token in inside
        or kinds[i] == BYTE
        or (kinds[i] == USER_DEFINED and any(token in text for text in texts))
        or (len(token) == 1 and ord(token) < 0x180)  # the byte-level alphabet
        or i in roles
    ]
    new_id = {old: new for new, old in enumerate(keep)}
    kept = {
        key: value
        for key, value in metadata.items()
        if key.startswith("tokenizer.ggml.") and not isinstance(value, list)
    }
    for key in ("tokens", "token_type", "scores"):
        if f"tokenizer.ggml.{key}" in metadata:
            kept[f"tokenizer.ggml.{key}"] = [metadata[f"tokenizer.ggml.{key}"][i] for i in keep]
    if "tokenizer.ggml.merges" in metadata:
        kept["tokenizer.ggml.merges"] = [
            merge
            for merge in metadata["tokenizer.ggml.merges"]
            if merge.replace(" ", "", 1) in inside
        ]
    for key, value in metadata.items():
        if key.endswith("_token_id") and key in kept:
            kept[key] = new_id[value]
    return kept, keep


def write(name: str, metadata: dict, texts: list[str], wanted: list[list[int]]) -> None:
    small, old_ids = reduced(metadata, texts)
    for data, old in ((metadata, range(10**7)), (small, old_ids)):
        tokenizer = gguf_tokenizer(data)
        for text, want in zip(texts, wanted, strict=True):
            ids = tokenizer.encode(text, add_special=False, parse_special=False)
            assert [old[i] for i in ids] == want, (name, text, ids, want)
    content = {"metadata": small, "old_ids": old_ids, "texts": texts, "ids": wanted}
    TARGET.mkdir(parents=True, exist_ok=True)
    file = TARGET / f"{name}.json"
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(name, len(texts), "texts", len(old_ids), "tokens", file.stat().st_size, "bytes")


def unigram(path: Path) -> None:
    """A small Unigram model, since no file with vectors has one."""
    draw = random.Random(5)
    pieces = (
        "▁the the ▁a ▁cat cat s ing ▁un e t h i n g ▁ c d o ▁hello lo he ll é ▁über ü b 日本 日 ."
    )
    tokens = ["<pad>", "</s>", "<unk>", *pieces.split(" ")]
    writer = GGUFWriter(path, "t5")
    writer.add_tokenizer_model("t5")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 3 + [-draw.uniform(2, 9) for _ in tokens[3:]])
    writer.add_token_types([3, 3, 2] + [1] * (len(tokens) - 3))
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def unigram_texts(count: int) -> list[str]:
    draw = random.Random(6)
    words = ["the", "cat", " ", "  ", "hello", "é", "über", "日本", "x", "s", "ing", "\n", "."]
    return ["".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(count)]


def main() -> None:
    folder, python, *extra = sys.argv[1:]
    for path in sorted(Path(folder).glob("ggml-vocab-*.gguf")):
        metadata = dict(open_gguf(path).metadata)
        if path.with_name(path.name + ".out").exists() and "bert" not in path.name:
            name = path.stem.removeprefix("ggml-vocab-")
            texts, wanted = vectors(path)
            write(name, metadata, texts, wanted[: len(texts)])
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "unigram.gguf"
        unigram(path)
        texts = unigram_texts(100)
        write("unigram", dict(open_gguf(path).metadata), texts, oracle(python, path, texts))
    for path in map(Path, extra):
        metadata = dict(open_gguf(path).metadata)
        texts = further_texts(300)
        write(path.stem.split("-")[0].lower(), metadata, texts, oracle(python, path, texts))


if __name__ == "__main__":
    main()
