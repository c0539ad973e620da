"""Every import is declared, the core needs no extra, and the wheel that is built from the sdist can be installed."""

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
from packaging.requirements import Requirement

import k3seq

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "k3seq"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
once = pytest.mark.once

# Modules whose distribution has another name.
DISTRIBUTIONS = {"yaml": "pyyaml", "keras_hub": "keras-hub", "tensorflow": "tensorflow-cpu"}
# Modules that are imported only where their extra is installed, and need no `require_extra`.
EXTRA_OF = {
    "k3seq.cli": "cli",
    "k3seq.commands": "cli",
    "k3seq.parity.plugin": "test",  # pytest imports it
    "k3seq.backend.jax": "jax",
    "k3seq.backend.jax_recurrent": "jax",
    "k3seq.backend.tensorflow": "tensorflow",
    "k3seq.backend.tensorflow_recurrent": "tensorflow",
    **{f"k3seq.backend.{path.stem}": "torch" for path in (PACKAGE / "backend").glob("torch*.py")},
    "k3seq.bench.peers": "peers",
    "k3seq.bench.peers.jax_lstm": "jax",
    "k3seq.bench.peers.torch_lstm": "torch",
}
POSIX = ("fcntl", "grp", "pwd", "resource", "select", "termios", "tty")


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(extra=None):
    """The distributions that `pip install "k3seq[extra]"` asks for; without an extra those of the core."""
    found = set()
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]):
        if requirement.name == "k3seq":
            found |= {name for one in requirement.extras for name in closure(one)}
        else:
            found.add(canonical(requirement.name))
    return found | (closure() if extra else set())


def third_party(tree):
    """(line, module, extra of the `require_extra` around it or None) of each absolute import that Python does not bring."""

    def visit(node, extra):
        if isinstance(node, ast.With):
            for item in node.items:
                call = item.context_expr
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "require_extra":
                    extra = ast.literal_eval(call.args[0])
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
        for name in names:
            module = name.partition(".")[0]
            if module not in sys.stdlib_module_names and module != "k3seq":
                yield node.lineno, module, extra
        for child in ast.iter_child_nodes(node):
            yield from visit(child, extra)

    return visit(tree, None)


def undeclared(source, module):
    """Lines `module:1 imports name` for what neither the core, the extra of the module, nor a `require_extra` declares."""
    own = [extra for name, extra in EXTRA_OF.items() if module == name or module.startswith(name + ".")]
    for line, name, extra in third_party(ast.parse(source)):
        allowed = closure() | {d for one in [*own, *filter(None, [extra])] for d in closure(one)}
        if canonical(DISTRIBUTIONS.get(name, name)) not in allowed:
            yield f"{module}:{line} imports {name}"


@once
def test_every_import_is_a_dependency_or_stands_where_its_extra_is_required():
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(["k3seq", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        assert list(undeclared(path.read_text(encoding="utf-8"), module)) == []


@once
@pytest.mark.parametrize(
    "source, found",
    [
        ("import grain", ["k3seq.layers.bad:1 imports grain"]),
        ("def f():\n    from yaml import safe_load", ["k3seq.layers.bad:2 imports yaml"]),
        ("import importlib\nimportlib.import_module('rapidfuzz.distance')", ["k3seq.layers.bad:2 imports rapidfuzz"]),
        ("with require_extra('metrics'):\n    import grain", ["k3seq.layers.bad:2 imports grain"]),
        ("with require_extra('data'):\n    import grain", []),
        ("import json, ml_dtypes\nfrom keras import ops\nfrom . import masks", []),
    ],
)
def test_an_import_that_is_not_declared_is_found(source, found):
    assert list(undeclared(source, "k3seq.layers.bad")) == found


@once
def test_the_core_depends_on_keras_numpy_and_ml_dtypes_alone():
    assert closure() == {"keras", "numpy", "ml-dtypes"}
    assert {str(r.specifier) for r in map(Requirement, PROJECT["dependencies"]) if r.name == "keras"} == {"<3.17,>=3.15"}


@once
def test_all_holds_every_extra_but_the_competitors_and_the_tests():
    others = set(PROJECT["optional-dependencies"]) - {"all", "peers", "test"}
    assert closure("all") == {name for extra in others for name in closure(extra)}


@once
def test_the_constraints_pin_every_declared_package_within_its_range():
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    pins = {canonical(name): version for name, version in (line.split("==") for line in lines if line)}
    declared = [
        *PROJECT["dependencies"],
        *(r for e, rs in PROJECT["optional-dependencies"].items() if e != "peers" for r in rs),
    ]
    for requirement in map(Requirement, declared):
        if requirement.name not in ("k3seq", "tensorflow"):  # the other name of tensorflow-cpu
            assert pins[canonical(requirement.name)] in requirement.specifier, requirement


# Without extras. A finder hides their packages from everyone, and the modules and calls of POSIX from k3seq.

BLOCKED = """
import os, signal, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in EXTRAS or (top in POSIX and self.importer().startswith(PACKAGE)):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def importer(self):
        frame = sys._getframe(2)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        return frame.f_code.co_filename

for name in [n for n in sys.modules if n.partition(".")[0] in POSIX]:
    del sys.modules[name]
for place, names in ((os, ("killpg", "getpgid", "setsid", "fork")), (signal, ("SIGKILL", "SIGUSR1", "SIGHUP"))):
    for name in names:
        delattr(place, name)
sys.meta_path.insert(0, Blocker())
"""


def blocked(code, *arguments, **environment):
    """Runs code in a process where neither the extras' packages nor POSIX calls are there."""
    hidden = closure("cli") | closure("parity") | closure("bench")
    hidden -= closure() | {"rich"}  # Keras depends on it
    modules = {distribution: module for module, distribution in DISTRIBUTIONS.items()}
    extras = {modules.get(name, name.replace("-", "_")) for name in hidden}
    head = f"EXTRAS, POSIX, PACKAGE = {sorted(extras)!r}, {POSIX!r}, {str(PACKAGE)!r}\n{BLOCKED}"
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, "-c", head + code, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)


CORE = """
import numpy as np, keras
import k3seq, k3seq.errors, k3seq.typing, k3seq.runtime.workers, k3seq.runtime.memory, k3seq.report.record, k3seq.pipeline
from k3seq import backend, data, decode, inspect, layers, metrics, models, random, report, runtime, seq2seq, train
from k3seq.data import CharTokenizer
from k3seq.models import AttentionSeq2Seq

tokenizer = CharTokenizer.fit(["abc"])
model = random.initialize(AttentionSeq2Seq(8, 8, embed_dim=4, units=4), seed=0)
source = np.array([tokenizer.encode("abc")])
tokens, *_ = decode.greedy(model, source, max_steps=3)
print(tokens.shape)
"""


def test_the_core_works_without_extras_and_without_posix_calls():
    done = blocked(CORE)
    assert (done.returncode, done.stdout) == (0, "(1, 3)\n"), done.stderr


MISSING = """
from k3seq import metrics, report
from k3seq.data import Batches, Examples, records, tokenizers
from k3seq.errors import MissingPackage
from k3seq.runtime import matrix

def epoch():
    next(Batches([([4], [5])], 1, 0).epoch(0))

uses = [
    lambda: metrics.edit_distance("a", "b"),
    lambda: records.pack({"x": "y"}),
    lambda: records.read_shards(sys.argv[1:]),
    lambda: tokenizers.SubwordTokenizer(b""),
    epoch,
    lambda: report.page("title"),
    lambda: matrix.load("backends_matrix.yml"),
]
for use in uses:
    try:
        use()
    except MissingPackage as error:
        print(error, error.exit_code)
"""


@once
def test_a_missing_extra_is_reported_in_one_line_with_its_install_command(tmp_path):
    shard = tmp_path / "x-00000-of-00001.array_record"
    shard.touch()
    done = blocked(MISSING, str(shard))
    expected = [
        ("rapidfuzz", "metrics"),
        ("safetensors", "data"),
        ("array_record", "data"),
        ("sentencepiece", "data"),
        ("grain", "data"),
        ("jinja2", "report"),
        ("yaml", "cli"),
    ]
    lines = [f'{name} is not installed. Install it with: pip install "k3seq[{extra}]" 2' for name, extra in expected]
    assert done.stdout.splitlines() == lines, done.stderr


@once
def test_the_command_without_its_extra_is_one_line():
    done = blocked("import runpy; sys.argv[0] = 'k3seq'; runpy.run_module('k3seq', run_name='__main__')", "backends")
    assert done.returncode == 2
    assert done.stderr == 'k3seq: typer is not installed. Install it with: pip install "k3seq[cli]"\n'


# Wheel and sdist.

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
