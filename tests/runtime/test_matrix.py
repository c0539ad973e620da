"""The matrix file: what it may say, what it must refuse, and that it agrees with the rest of the project."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from k3seq.errors import DataError, MissingBackend, UsageError
from k3seq.runtime import matrix

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


def written(tmp_path, text):
    path = tmp_path / matrix.FILE
    path.write_text(text, encoding="utf-8")
    return path


def test_the_projects_file_lists_three_backends_that_train_and_numpy_that_does_not():
    read = matrix.load(ROOT / matrix.FILE)
    assert list(read.backends) == ["jax", "tensorflow", "torch", "numpy"]
    assert list(read.training) == ["jax", "tensorflow", "torch"]
    assert read.tolerance("forward") == 2e-6
    assert read.tolerance("gradients") == 1e-5


def test_the_defaults_agree_with_the_projects_file():
    read, default = matrix.load(ROOT / matrix.FILE), matrix.Matrix()
    assert read.tolerances == default.tolerances
    for name, entry in default.backends.items():
        of_file = read.backends[name]
        assert (entry.module, entry.distributions, entry.install, entry.jit) == (
            of_file.module,
            of_file.distributions,
            of_file.install,
            of_file.jit,
        )


def test_versions_agree_with_the_constraints():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    read = matrix.load(ROOT / matrix.FILE)
    assert pins["keras"] == read.keras
    for entry in read.backends.values():
        assert pins[entry.distributions[0]] == entry.version


def test_the_file_is_found_upward_from_a_folder_below_it(tmp_path, monkeypatch):
    path = written(tmp_path, "backends: {torch: {}}")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert matrix.load().path == path.resolve()
    assert list(matrix.load().backends) == ["torch"]


def test_without_a_file_the_defaults_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert matrix.load() == matrix.Matrix()
    assert list(matrix.load().backends) == ["jax", "tensorflow", "torch"]


def test_an_empty_file_is_the_defaults(tmp_path):
    assert matrix.load(written(tmp_path, "")).backends == matrix.DEFAULT_BACKENDS


REFUSED = [
    ("backend: {}", "top level: Expected a key out of backends, .* Received: 'backend'"),
    ("backends: {jax: {modul: jax}}", r"backends\.jax: Expected a key out of module, .* Received: 'modul'"),
    ("backends: {}", "backends: Expected at least one backend"),
    ("backends: [jax]", "backends: Expected a mapping"),
    ("backends: {jax: {version: 0.1}}", r"backends\.jax\.version: Expected text .* Received: 0\.1"),
    ("backends: {jax: {jit: [1]}}", r"backends\.jax\.jit\[0\]: Expected true or false. Received: 1"),
    ("backends: {jax: {dtypes: []}}", r"backends\.jax\.dtypes: Expected at least one entry"),
    ("tolerances: {float32: {forward: 2e-6}}", r"tolerances\.float32\.forward: Expected a number .* Received: '2e-6'"),
    ("tolerances: {float32: {forward: .nan}}", r"tolerances\.float32\.forward: Expected a number"),
    ("tolerances: {float32: {forward: -1}}", r"tolerances\.float32\.forward: Expected a number"),
    ("wider: [{check: forward, case: x, value: 1}]", r"wider\[0\]: Expected a key reason"),
    ("expected_failures: [{test: a, backends: [mxnet], reason: r}]", r"\[0\]\.backends: Expected a backend out of jax"),
    ("expected_failures: [{test: a, backends: [jax]}]", r"expected_failures\[0\]: Expected a key reason"),
    ("expected_failures: {}", "expected_failures: Expected a list"),
    ("backends: {jax: {trains: 1}}", r"backends\.jax\.trains: Expected true or false. Received: 1"),
    ("backends: {jax: {needs: numpy}}", r"backends\.jax\.needs: Expected a list"),
    (
        "backends: {jax: {newest: 'jax >= 1'}}",
        r"backends\.jax\.newest: Expected a requirement for pip, .* Received: 'jax >= 1'",
    ),
    ("newest: {python: '3.13'}", "newest: Expected a key keras"),
    ("newest: {python: 3.13, keras: keras}", r"newest\.python: Expected text .* Received: 3\.13"),
    ("newest: {python: '3.13', keras: '--pre keras'}", r"newest\.keras: Expected a requirement for pip"),
    ("newest: {python: '3.13', keras: keras, jax: jax}", "newest: Expected a key out of python, keras. Received: 'jax'"),
    ("- 1", "top level: Expected a mapping"),
    ("1: 2", "top level: Expected a mapping"),
]


@pytest.mark.parametrize("text, message", REFUSED, ids=[t for t, _ in REFUSED])
def test_a_wrong_file_is_refused_with_the_place(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        matrix.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_broken_yaml_names_the_line(tmp_path):
    with pytest.raises(DataError, match=":2: Expected YAML"):
        matrix.load(written(tmp_path, "backends:\n  jax: ]\n"))


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / matrix.FILE
    path.write_bytes(b"backends: {jax: {install: \xff}}")
    with pytest.raises(DataError, match="Expected UTF-8"):
        matrix.load(path)


def test_wider_tolerances_hold_for_their_cases_only(tmp_path):
    read = matrix.load(written(tmp_path, "wider: [{check: forward, case: 'gru*', value: 3.0e-5, reason: measured 2.1e-5}]"))
    assert read.tolerance("forward", case="gru-deep") == 3e-5
    assert read.tolerance("forward", case="lstm") == 2e-6
    assert read.tolerance("gradients", case="gru-deep") == 1e-5


def test_an_unknown_tolerance_names_the_choices():
    with pytest.raises(UsageError, match=r"float32\.forward.* Received: float32\.backward"):
        matrix.Matrix().tolerance("backward")


@pytest.mark.parametrize(
    "pattern, matched",
    [
        ("tests/test_a.py::test_x", ["tests/test_a.py::test_x", "tests/test_a.py::test_x[1-b]"]),
        ("tests/test_a.py::test_x[1-b]", ["tests/test_a.py::test_x[1-b]"]),
        ("*::test_x*", ["tests/test_a.py::test_x", "tests/test_a.py::test_x[1-b]", "tests/test_a.py::test_xy"]),
    ],
)
def test_patterns_take_brackets_literally(pattern, matched):
    tests = ["tests/test_a.py::test_x", "tests/test_a.py::test_x[1-b]", "tests/test_a.py::test_xy", "tests/test_a.py::test_1"]
    assert [t for t in tests if matrix.matches(t, pattern)] == matched


def test_an_expected_failure_is_of_its_backends_only(tmp_path):
    read = matrix.load(written(tmp_path, "expected_failures: [{test: 'a.py::t', backends: [torch], reason: no kernel}]"))
    assert read.expected_failure("torch", "a.py::t[1]").reason == "no kernel"
    assert read.expected_failure("jax", "a.py::t[1]") is None
    assert read.expected_failure("torch", "a.py::other") is None


def test_expected_failures_name_tests_that_exist():
    for entry in matrix.load(ROOT / matrix.FILE).expected_failures:
        file, _, name = entry.test.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        tests = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        assert any(matrix.matches(t, name.split("[")[0]) for t in tests), entry.test


def test_a_missing_backend_is_named_with_its_install_command(tmp_path):
    read = matrix.load(
        written(tmp_path, "backends: {torch: {module: no_such_framework, install: 'pip install \"k3seq[torch]\"'}}")
    )
    assert matrix.installed("torch", read) is None
    with pytest.raises(MissingBackend, match=r'torch is not installed. Install it with: pip install "k3seq\[torch\]"'):
        matrix.require("torch", read)


def test_a_backend_is_missing_where_a_module_that_it_needs_is(tmp_path):
    read = matrix.load(
        written(tmp_path, "backends: {one: {module: json, needs: [csv]}, two: {module: json, needs: [no_such]}}")
    )
    assert matrix.installed("one", read) == "unknown"
    assert matrix.installed("two", read) is None


NEWEST = """
newest: {{python: '{python}', keras: keras-nightly>=3.16.0.dev0}}
backends: {{jax: {{newest: 'jax>=0.12,!=0.13'}}, torch: {{newest: torch}}, numpy: {{trains: false}}}}
"""


def test_the_newest_versions_are_requirements_with_keras_first(tmp_path):
    read = matrix.load(written(tmp_path, NEWEST.format(python=".".join(map(str, sys.version_info[:2])))))
    assert matrix.newest_requirements(read) == ["keras-nightly>=3.16.0.dev0", "jax>=0.12,!=0.13", "torch"]
    assert matrix.newest_requirements(read, ["torch", "numpy"]) == ["keras-nightly>=3.16.0.dev0", "torch"]


def test_the_newest_versions_are_refused_on_another_python_and_where_there_are_none(tmp_path):
    with pytest.raises(UsageError, match=r"Expected Python 3\.99\. Received: 3\.1"):
        matrix.newest_requirements(matrix.load(written(tmp_path, NEWEST.format(python="3.99"))))
    with pytest.raises(UsageError, match="to have the key newest"):
        matrix.newest_requirements(matrix.Matrix())


def test_the_projects_newest_versions_are_allowed_by_its_dependencies():
    read = matrix.load(ROOT / matrix.FILE)
    assert read.newest is not None and read.newest.python == read.python[-1]
    assert all(entry.newest for entry in read.training.values())


def test_a_folder_that_has_the_name_is_no_backend(tmp_path, monkeypatch):
    (tmp_path / "folder_framework").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert matrix.installed("x", matrix.load(written(tmp_path, "backends: {x: {module: folder_framework}}"))) is None


def test_an_unknown_backend_names_the_choices():
    with pytest.raises(UsageError, match="jax, tensorflow, torch. Received: mxnet"):
        matrix.require("mxnet", matrix.Matrix())


def test_looking_for_backends_imports_none():
    code = (
        "import sys; from k3seq.runtime import matrix; m = matrix.load()\n"
        "print([matrix.installed(n, m) for n in m.backends])\n"
        "print([n for n in ('keras', 'jax', 'tensorflow', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_hosted_ci_gets_every_backend_once_on_the_first_python(tmp_path):
    text = "python: ['3.11', '3.12']\nbackends: {jax: {}, torch: {}, numpy: {trains: false}}"
    read = matrix.load(written(tmp_path, text))
    pairs = [(j["backend"], j["python"]) for j in matrix.jobs(read)["include"]]
    assert pairs == [("jax", "3.11"), ("torch", "3.11"), ("jax", "3.12")]


def test_an_expected_failure_that_passes_is_an_error(tmp_path):
    """The project's own conftest.py, in a project of two tests that its matrix file expects to fail."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "tests" / "test_it.py").write_text("def test_fails(): assert False\ndef test_passes(): pass\n")
    entry = "{{test: 'tests/test_it.py::{}', backends: [json], reason: a known one}}"
    written(
        tmp_path, f"backends: {{json: {{}}}}\nexpected_failures: [{entry.format('test_fails')}, {entry.format('test_passes')}]"
    )
    command = [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), "-q", "-rxf"]
    environment = os.environ | {"KERAS_BACKEND": "json", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "1 failed, 1 xfailed" in done.stdout
    assert "XFAIL tests/test_it.py::test_fails - a known one" in done.stdout
    assert "[XPASS(strict)] a known one" in done.stdout
