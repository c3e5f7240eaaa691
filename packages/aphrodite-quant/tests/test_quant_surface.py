"""What the package shows to the outside, and what importing it costs."""

import importlib
import pkgutil
import subprocess
import sys

import aphrodite_quant
import pytest
from aphrodite_quant import format_names

MODULES = [
    module.name for module in pkgutil.walk_packages(aphrodite_quant.__path__, "aphrodite_quant.")
]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_says_what_it_is(name):
    assert importlib.import_module(name).__doc__


def test_every_exported_name_exists():
    assert sorted(aphrodite_quant.__all__) == sorted(set(aphrodite_quant.__all__))
    for exported in aphrodite_quant.__all__:
        assert hasattr(aphrodite_quant, exported)


@pytest.mark.parametrize("name", format_names())
def test_every_format_has_both_functions(name):
    module = importlib.import_module(f"aphrodite_quant.formats.{name}")
    assert callable(module.claims)
    assert callable(module.reader)


def test_importing_loads_no_reader_of_files():
    code = (
        "import sys, aphrodite_quant; "
        "from aphrodite_quant.location import find_weights; "
        "readers = ('torch', 'gguf', 'safetensors', 'transformers'); "
        "print([name for name in readers if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
