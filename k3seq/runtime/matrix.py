"""The content of `backends_matrix.yml`: backends, versions, tolerances and expected failures.

The file is searched for in the working directory and the folders above it, so that a project that uses k3seq can have its own.
Without a file the backends and tolerances below hold. Nothing here imports keras or a framework.

`python -m k3seq.runtime.matrix` prints the jobs of hosted CI, and `... newest BACKEND...` the newest set of versions for pip.
"""

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from k3seq.errors import DataError, K3SeqError, MissingBackend, UsageError, require_extra

FILE = "backends_matrix.yml"


@dataclass(frozen=True)
class Backend:
    """One backend: its package, how to install it, and what is tested with it."""

    name: str
    module: str  # what Python imports
    distributions: tuple[str, ...]  # each of them contains the module
    install: str
    needs: tuple[str, ...] = ()  # other modules that must be installed
    version: str = ""  # the tested one
    newest: str = ""  # a requirement for pip in the newest set of versions
    dtypes: tuple[str, ...] = ("float32",)
    jit: tuple[bool, ...] = (False,)
    trains: bool = True  # False: inference only; no gradients, no training, never the default choice
    optional: bool = False  # `k3seq matrix` passes without it


@dataclass(frozen=True)
class Newest:
    """What the newest set of versions runs on, besides `Backend.newest`."""

    python: str
    keras: str  # a requirement for pip


@dataclass(frozen=True)
class Wider:
    """A tolerance that holds for the cases whose name matches `case`, with its measured reason."""

    check: str
    case: str
    value: float
    reason: str
    dtype: str = "float32"


@dataclass(frozen=True)
class ExpectedFailure:
    """Tests that fail on some backends for a known reason; a test that passes all the same is an error."""

    test: str
    backends: tuple[str, ...]
    reason: str


DEFAULT_BACKENDS = {
    "jax": Backend("jax", "jax", ("jax",), 'pip install "k3seq[jax]"', jit=(True, False)),
    "tensorflow": Backend(
        "tensorflow", "tensorflow", ("tensorflow-cpu", "tensorflow"), 'pip install "k3seq[tensorflow]"', jit=(True, False)
    ),
    "torch": Backend("torch", "torch", ("torch",), 'pip install "k3seq[torch]"'),
}
DEFAULT_TOLERANCES = {
    "float32": {
        "forward": 2e-6,
        "gradients": 1e-5,
        "sgd_weights": 1e-5,
        "adam_losses": 1e-4,
        "reference": 1e-5,
        "reload": 0.0,
    }
}


@dataclass(frozen=True)
class Matrix:
    """The whole content. `path` is the file, or None for the defaults."""

    backends: dict[str, Backend] = field(default_factory=lambda: dict(DEFAULT_BACKENDS))
    tolerances: dict[str, dict[str, float]] = field(default_factory=lambda: {k: dict(v) for k, v in DEFAULT_TOLERANCES.items()})
    wider: tuple[Wider, ...] = ()
    expected_failures: tuple[ExpectedFailure, ...] = ()
    python: tuple[str, ...] = ()
    keras: str = ""
    newest: Newest | None = None
    path: Path | None = None

    @property
    def training(self) -> dict[str, Backend]:
        """The backends that train, in the order of the file."""
        return {name: entry for name, entry in self.backends.items() if entry.trains}

    def backend(self, name: str) -> Backend:
        """The backend of that name; UsageError with the choices where there is none."""
        if name not in self.backends:
            raise UsageError(f"Expected a backend out of {', '.join(self.backends)}. Received: {name}")
        return self.backends[name]

    def tolerance(self, check: str, dtype: str = "float32", case: str = "") -> float:
        """The allowed largest difference over the largest value; where entries of `wider` match `case`, the largest of them."""
        checks = self.tolerances.get(dtype, {})
        if check not in checks:
            known = ", ".join(f"{d}.{c}" for d, cs in self.tolerances.items() for c in cs)
            raise UsageError(f"Expected a tolerance out of {known}. Received: {dtype}.{check}")
        wider = [w.value for w in self.wider if (w.check, w.dtype) == (check, dtype) and fnmatchcase(case, w.case)]
        return max([checks[check], *wider])

    def expected_failure(self, backend: str, test: str) -> ExpectedFailure | None:
        """The entry for the test with this pytest node id on `backend`, or None."""
        return next((e for e in self.expected_failures if backend in e.backends and matches(test, e.test)), None)


def matches(test: str, pattern: str) -> bool:
    """Whether a node id matches a pattern of `*` and `?`; without `[...]` the pattern matches every parameter of a test."""
    literal = pattern.replace("[", "[[]")  # fnmatch would read the parameters of a test as a set of characters
    return fnmatchcase(test, literal) or fnmatchcase(test.split("[", 1)[0], literal)


def find(start: Path | None = None) -> Path | None:
    """`backends_matrix.yml` in `start` (the working directory) or the nearest folder above it, or None."""
    start = (start or Path.cwd()).resolve()
    return next((d / FILE for d in (start, *start.parents) if (d / FILE).is_file()), None)


def load(path: str | Path | None = None) -> Matrix:
    """Reads and checks the matrix.

    Args:
        path: the file; None searches the working directory and the folders above it, and uses the defaults where none is found.

    Raises:
        DataError: the file is not YAML, or has an unknown key or a value of the wrong kind; the message names the place.
        MissingPackage: there is a file and PyYAML is not installed.
        OSError: `path` was given and cannot be read.
    """
    from k3seq.runtime.matrix_reader import Reader

    with require_extra("cli"):
        import yaml

    found = Path(path) if path is not None else find()
    if found is None:
        return Matrix()
    try:
        content = yaml.safe_load(found.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"Expected UTF-8. Received: {error}", found) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "unreadable text"
        raise DataError(f"Expected YAML. Received: {what}", found, mark and mark.line + 1) from error
    return Reader(found).matrix({} if content is None else content)


def installed(name: str, matrix: Matrix | None = None) -> str | None:
    """The installed version of a backend ("unknown" where it has none), or None; the framework is not imported."""
    entry = (matrix or load()).backend(name)
    if not all(_importable(module) for module in (entry.module, *entry.needs)):
        return None
    for distribution in entry.distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _importable(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None  # no origin: a folder that happens to have the name


def require(name: str, matrix: Matrix | None = None) -> str:
    """The installed version of a backend.

    Raises:
        MissingBackend: it is not installed; the message holds the install command.
        UsageError: there is no backend of that name.
    """
    matrix = matrix or load()
    version = installed(name, matrix)
    if version is None:
        raise MissingBackend(f"Backend {name} is not installed. Install it with: {matrix.backend(name).install}")
    return version


def jobs(matrix: Matrix) -> dict[str, list[dict[str, str]]]:
    """The job matrix of hosted CI: every backend that trains on the first Python, and the first backend on the others."""
    names, pythons = list(matrix.training), list(matrix.python) or ["3.11"]
    pairs = [(name, pythons[0]) for name in names] + [(names[0], python) for python in pythons[1:]]
    return {"include": [{"backend": name, "python": python} for name, python in pairs]}


def newest_requirements(matrix: Matrix, names: Iterable[str] = ()) -> list[str]:
    """The newest set of versions as requirements for pip: Keras first, then the backends.

    Args:
        names: backends; none means all that have a newest version.

    Raises:
        UsageError: the file has no newest set, this Python is not the one of that set, or a backend is unknown.
    """
    if matrix.newest is None:
        raise UsageError(f"Expected {FILE} to have the key newest. Received: {matrix.path or 'no file'}")
    running = ".".join(map(str, sys.version_info[:2]))
    if running != matrix.newest.python:
        raise UsageError(f"Expected Python {matrix.newest.python}. Received: {running}")
    return [matrix.newest.keras, *filter(None, (matrix.backend(name).newest for name in (names or matrix.backends)))]


if __name__ == "__main__":
    try:
        print("\n".join(newest_requirements(load(), sys.argv[2:])) if sys.argv[1:2] == ["newest"] else json.dumps(jobs(load())))
    except K3SeqError as problem:
        sys.exit(str(problem))
