"""What the package shows to the outside."""

import importlib
import pkgutil
import subprocess
import sys

import aphrodite_kernels
import pytest

MODULES = [
    module.name
    for module in pkgutil.walk_packages(aphrodite_kernels.__path__, "aphrodite_kernels.")
    if ".backends." not in module.name or ".backends.reference" in module.name
]


@pytest.mark.parametrize("name", MODULES)
def test_every_exported_name_exists(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for exported in getattr(module, "__all__", []):
        assert hasattr(module, exported), f"{name}.__all__ names {exported}"


def test_the_package_exports_its_central_types():
    expected = {"Backend", "Dense", "GgmlBlocks", "KernelError", "PackedWeight", "backend_for"}
    assert expected <= set(aphrodite_kernels.__all__)


def test_importing_loads_no_reader_of_files():
    code = (
        "import sys, aphrodite_kernels; "
        "print([name for name in ('gguf', 'safetensors', 'triton', 'pytest') "
        "if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
