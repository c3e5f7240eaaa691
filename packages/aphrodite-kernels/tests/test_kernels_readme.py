import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_first_example_runs():
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(example[1], str(README), "exec"), {})
