"""Each wheel builds, installs from a folder of wheels and imports alone, without the workspace."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILT = re.compile(r"__pycache__|/lib/")
"""What runs leave in a source tree, and `scripts/build_cpu`."""


def run(*command: object, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of every package.

    C++ is compiled without optimisation, in a third of the time: the installation that runs this
    has compiled the same with it.
    """
    folder = tmp_path_factory.mktemp("wheels")
    for package in sorted((ROOT / "packages").iterdir()):
        compiled = (package / "CMakeLists.txt").exists()
        options = ("--config-setting", "cmake.build-type=Unoptimised") if compiled else ()
        run(sys.executable, "-m", "uv", "build", "--wheel", *options, "--out-dir", folder, package)
    return folder


def install(environment: Path, wheels: Path, package: str) -> Path:
    """Install a package and what it needs into an environment; its interpreter."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]
    constraints = environment.parent / "constraints.txt"
    constraints.write_text("\n".join(settings["constraint-dependencies"]))
    python = environment / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "uv", "venv", "--python", sys.executable, environment)
    options = ("--find-links", wheels, "--constraint", constraints)
    newest = ("--exclude-newer", settings["exclude-newer"])
    pip = (sys.executable, "-m", "uv", "pip", "install", "--python", python)
    run(*pip, *options, *newest, package, cwd=environment.parent)
    return python


def imports_alone(python: Path, module: str, cwd: Path) -> None:
    """The module imports from site-packages, carries its types and drags in no sibling."""
    script = f"""
import importlib.resources, sys
import {module}
assert "site-packages" in {module}.__file__, {module}.__file__
assert (importlib.resources.files({module}) / "py.typed").is_file()
print(" ".join(sorted(name for name in sys.modules if name.startswith("aphrodite_"))))
"""
    run(python, "-W", "error", "-c", script, cwd=cwd)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_package_has_a_wheel_of_its_own_version_with_all_its_files(wheels: Path) -> None:
    for package in sorted((ROOT / "packages").iterdir()):
        version = tomllib.loads((package / "pyproject.toml").read_text())["project"]["version"]
        name = package.name.replace("-", "_")
        [wheel] = wheels.glob(f"{name}-{version}-*.whl")
        held = set(zipfile.ZipFile(wheel).namelist())
        sources = [path for path in (package / "src").rglob("*") if path.is_file()]
        tracked = {str(path.relative_to(package / "src")) for path in sources}
        left_out = {one for one in tracked - held if not BUILT.search(one)}
        assert not left_out, (name, left_out)
        assert f"{name}-{version}.dist-info/licenses/LICENSE" in held


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_client_imports_alone(wheels: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "environment", wheels, "aphrodite-client")
    imports_alone(python, "aphrodite_client", tmp_path)
    listed = run(sys.executable, "-m", "uv", "pip", "list", "--python", python)
    assert "torch" not in listed
    assert "aphrodite-engine" not in listed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kernels_and_quant_import_alone(wheels: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "environment", wheels, "aphrodite-kernels")
    imports_alone(python, "aphrodite_kernels", tmp_path)
    install(tmp_path / "environment", wheels, "aphrodite-quant")
    imports_alone(python, "aphrodite_quant", tmp_path)
