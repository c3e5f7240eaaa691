import re
from pathlib import Path

import numpy

README = Path(__file__).parent.parent / "README.md"


def test_the_example_runs(tmp_path, monkeypatch, capsys, write_gguf):
    matrix = numpy.ones((3, 32), numpy.float32)
    write_gguf(tmp_path / "model.gguf", {"token_embd.weight": matrix})
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(example[1], str(README), "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "gguf llama",
        "token_embd.weight float32 [3, 32]",
        "torch.Size([3, 32])",
    ]
