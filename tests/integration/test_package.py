"""What is installed is whole: metadata that an index accepts, a program that runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.rst")), *sorted(ROOT.glob("contrib/docs/*.rst"))]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the built sdist and wheel; built from a copy, offline."""
    copy = tmp_path_factory.mktemp("package") / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=ignored)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", cwd=copy)
    return copy / "dist"


def test_the_metadata_is_accepted_strictly(dist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir(), cwd=dist)


def test_the_wheel_holds_the_program_its_man_pages_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    others = {n for n in names if not n.startswith("dcs_proxy/") and ".dist-info/" not in n}
    pages = {f"share/man/man{section}/dcs-proxy.{section}" for section in (1, 5)}
    assert {name.partition(".data/data/")[2] for name in others} == pages
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "dcs_proxy").rglob("*.py")}
    assert sources | {"dcs_proxy/py.typed"} == {n for n in names if n.startswith("dcs_proxy/")}


def test_the_installed_program_runs(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    # Without --ignore-installed pip would first remove what the other tests run.
    run(sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--ignore-installed",
        "--prefix", tmp_path, wheel, cwd=tmp_path)  # fmt: skip
    (packages,) = tmp_path.glob("lib/*/site-packages")
    program = tmp_path / "bin" / "dcs-proxy"
    said = run(program, "--version", cwd=tmp_path, PYTHONPATH=str(packages))
    assert said == "dcs-proxy 0.1.0\n"
    for section in (1, 5):
        page = tmp_path / f"share/man/man{section}/dcs-proxy.{section}"
        assert page.read_bytes() == (ROOT / "contrib" / "man" / page.name).read_bytes()


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_the_documents_render_without_warnings(document: Path) -> None:
    run(sys.executable, "-m", "docutils", "--halt=2", document, "/dev/null", cwd=ROOT)
