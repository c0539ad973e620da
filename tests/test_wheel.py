"""The wheel that is built from the sdist can be installed and works; twine accepts both; the version has one source."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import k3seq

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "k3seq"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
once = pytest.mark.once


BUILD = """
import os, sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def build(kind, source, out):
    """The file that setuptools builds, called as pip and build call it."""
    done = subprocess.run([sys.executable, "-c", BUILD, kind, out], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(sdist, wheel), the wheel built from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("built")
    source, out = folder / "source", folder / "out"
    out.mkdir()
    shutil.copytree(PACKAGE, source / "k3seq", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    sdist = build("build_sdist", source, out)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    return sdist, build("build_wheel", next((folder / "unpacked").iterdir()), out)


@once
def test_the_wheel_holds_the_whole_package_and_nothing_else(built):
    _, wheel = built
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {f"k3seq/{p.relative_to(PACKAGE).as_posix()}" for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert {"k3seq/py.typed", "k3seq/report/templates/page.html"} < files
    assert any(name.endswith(".yml") for name in files)


INSTALLED = """
import importlib.metadata, json, sys
import k3seq
from k3seq import report
from k3seq.parity import divergences
print(json.dumps([k3seq.__file__, importlib.metadata.version("k3seq"), k3seq.__version__]))
print(report.page("A title").count("A title") > 0, len(divergences.load()) > 0)
"""


@once
def test_the_wheel_is_installed_into_an_empty_environment_and_works_there(built, tmp_path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", built[1]]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies of this environment, found after what is installed in the new one.
    (next(environment.glob("lib/python*/site-packages")) / "others.pth").write_text(sysconfig.get_path("purelib"))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", INSTALLED], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    about, works = done.stdout.splitlines()
    file, version, attribute = ast.literal_eval(about)
    assert Path(file).is_relative_to(environment) and version == attribute == k3seq.__version__
    assert works == "True True"
    script = subprocess.run([environment / "bin" / "k3seq", "--version"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert script.stdout == f"k3seq {k3seq.__version__}\n", script.stderr


@once
def test_twine_accepts_wheel_and_sdist(built):
    pytest.importorskip("twine")
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *built], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@once
def test_the_version_has_one_source():
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    written = [p for p in PACKAGE.rglob("*.py") if re.search(r"^__version__\s*=", p.read_text(encoding="utf-8"), re.MULTILINE)]
    assert written == [PACKAGE / "__init__.py"]
