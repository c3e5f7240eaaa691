"""What ARCHITECTURE.md and the tools' settings say of the tree is true."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted((ROOT / "packages").iterdir())
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    named = set(re.findall(r"`((?:packages|scripts|tests|benchmarks|docs)/[\w./-]+)`", text))
    named |= {link for link in re.findall(r"\]\(([\w./-]+)\)", text) if "://" not in link}
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_module_that_the_architecture_names_exists() -> None:
    """Modules are named from their package, or from the folder of the package's code, on."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`([a-z_][\w/]*(?:\.py|/))`", text))
    found = [path.relative_to(ROOT) for path in ROOT.glob("packages/*/src/**/*")]
    found += [path.relative_to(ROOT) for path in (ROOT / "tests").iterdir()]
    known = {"/" + "/".join(path.parts) for path in found}
    folders = {name for name in named if (ROOT / name).is_dir()}
    assert len(named) > 20
    missing = [
        name
        for name in sorted(named - folders)
        if not any(path.endswith("/" + name.rstrip("/")) for path in known)
    ]
    assert missing == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_is_complete(package: Path) -> None:
    module = package.name.replace("-", "_")
    for part in (
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "pyproject.toml",
        f"src/{module}/py.typed",
    ):
        assert (package / part).is_file(), part
    # Links, but for kernels: its build backend would put the link itself into an sdist.
    assert (package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    version = tomllib.loads((package / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (package / "CHANGELOG.md").read_text()


def test_siblings_depend_by_compatible_range() -> None:
    for package in PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        for requirement in project["dependencies"]:
            if requirement.startswith("aphrodite-"):
                assert re.fullmatch(r"aphrodite-\w+>=\d+\.\d+,<\d+\.\d+", requirement), requirement


BEHIND_OTHERS = {
    "aphrodite-kernels": {"numpy"},  # for torch, which warns without it
    "aphrodite-quant": {"numpy"},  # for torch's `Tensor.numpy`
    "aphrodite-server": {"httptools"},  # for uvicorn
}
"""What a package declares and another library imports for it."""
OPTIONAL = {"triton", "transformers"}
"""Imported only where they are needed: for GPUs, by torch's own; for tokenizers of old formats."""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_declares_what_it_imports(package: Path) -> None:
    """No more and no less: each installs alone."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    declared = {
        re.match(r"[\w-]+", requirement).group().lower() for requirement in project["dependencies"]
    }
    imported = set().union(*map(imports_of, package.glob("src/**/*.py")))
    distributions = importlib.metadata.packages_distributions()
    outside = imported - sys.stdlib_module_names - {package.name.replace("-", "_")} - OPTIONAL
    # Editable installations, as of the workspace's own packages, are not in that map.
    needed = {distributions.get(name, [name])[0].lower().replace("_", "-") for name in outside}
    assert needed == declared - BEHIND_OTHERS.get(package.name, set())


def imports_of(path: Path) -> set[str]:
    """The top-level names that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_sizes() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_sizes.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
