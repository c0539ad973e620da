"""Reads `backends_matrix.yml`, the one list of backends, versions, tolerances and expected failures.

The file is looked for upward from the working directory, so that a project that uses k3seq may bring its own; without one
the backends below stand, with the default tolerances. Nothing here imports keras or a framework.
"""

import importlib.metadata
import importlib.util
import json
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path

from k3seq.errors import DataError, MissingBackend, UsageError, require_extra

FILE = "backends_matrix.yml"


@dataclass(frozen=True)
class Backend:
    """One backend: how to see that it is there, how to install it, what of it is tested."""

    name: str
    module: str  # what Python imports
    distributions: tuple[str, ...]  # any one of them brings the module
    install: str
    version: str = ""  # the tested one
    dtypes: tuple[str, ...] = ("float32",)
    jit: tuple[bool, ...] = (False,)
    optional: bool = False  # `k3seq matrix` passes without it


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
    """Tests that fail on some backends for a known reason; one that passes is an error."""

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
    """The whole list. `path` is the file it came from, or None for the defaults."""

    backends: dict[str, Backend] = field(default_factory=lambda: dict(DEFAULT_BACKENDS))
    tolerances: dict[str, dict[str, float]] = field(default_factory=lambda: {k: dict(v) for k, v in DEFAULT_TOLERANCES.items()})
    wider: tuple[Wider, ...] = ()
    expected_failures: tuple[ExpectedFailure, ...] = ()
    python: tuple[str, ...] = ()
    keras: str = ""
    path: Path | None = None

    def backend(self, name: str) -> Backend:
        """The backend of that name; UsageError naming the choices where there is none."""
        if name not in self.backends:
            raise UsageError(f"Expected a backend out of {', '.join(self.backends)}. Received: {name}")
        return self.backends[name]

    def tolerance(self, check: str, dtype: str = "float32", case: str = "") -> float:
        """Largest difference over largest value that `check` allows; the widest entry of `wider` that matches `case` counts."""
        checks = self.tolerances.get(dtype, {})
        if check not in checks:
            known = ", ".join(f"{d}.{c}" for d, cs in self.tolerances.items() for c in cs)
            raise UsageError(f"Expected a tolerance out of {known}. Received: {dtype}.{check}")
        room = [w.value for w in self.wider if (w.check, w.dtype) == (check, dtype) and fnmatchcase(case, w.case)]
        return max([checks[check], *room])

    def expected_failure(self, backend: str, test: str) -> ExpectedFailure | None:
        """The entry that expects the test of this pytest node id to fail on `backend`, or None."""
        return next((e for e in self.expected_failures if backend in e.backends and matches(test, e.test)), None)


def matches(test: str, pattern: str) -> bool:
    """True where a node id matches a pattern of `*` and `?`; a pattern without `[...]` takes in every parameter of the test."""
    literal = pattern.replace("[", "[[]")  # fnmatch would read the parameters of a test as a set of characters
    return fnmatchcase(test, literal) or fnmatchcase(test.split("[", 1)[0], literal)


def find(start: Path | None = None) -> Path | None:
    """`backends_matrix.yml` in `start` (the working directory) or the nearest folder above it, or None."""
    start = (start or Path.cwd()).resolve()
    return next((d / FILE for d in (start, *start.parents) if (d / FILE).is_file()), None)


def load(path: str | Path | None = None) -> Matrix:
    """Reads and checks the matrix.

    Args:
        path: the file; None looks for `backends_matrix.yml` upward from the working directory and falls back on the defaults.
    Raises:
        DataError: the file is not YAML, or has an unknown key or a value of the wrong kind; the message names the place.
        OSError: `path` was given and cannot be read.
    """
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
    return _Reader(found).matrix({} if content is None else content)


class _Reader:
    """Turns what YAML gave into the dataclasses; `place` is where in the file a value stands, such as `backends.jax.jit`."""

    def __init__(self, path: Path):
        self.path = path

    def matrix(self, content) -> Matrix:
        self.keys(content, "", [f.name for f in fields(Matrix) if f.name != "path"])
        given = {}
        for key in ("python", "keras"):
            if key in content:
                given[key] = self.strings(content[key], key) if key == "python" else self.text(content[key], key)
        if "backends" in content:
            entries = self.mapping(content["backends"], "backends")
            given["backends"] = {name: self.backend(name, entry or {}, f"backends.{name}") for name, entry in entries.items()}
            if not entries:
                raise self.wrong("at least one backend", content["backends"], "backends")
        names = list(given.get("backends", DEFAULT_BACKENDS))
        if "tolerances" in content:
            tolerances = {k: dict(v) for k, v in DEFAULT_TOLERANCES.items()}
            for dtype, checks in self.mapping(content["tolerances"], "tolerances").items():
                place = f"tolerances.{dtype}"
                read = {c: self.number(v, f"{place}.{c}") for c, v in self.mapping(checks, place).items()}
                tolerances.setdefault(dtype, {}).update(read)
            given["tolerances"] = tolerances
        if "wider" in content:
            given["wider"] = tuple(self.wider(e, p) for e, p in self.entries(content["wider"], "wider"))
        if "expected_failures" in content:
            entries = self.entries(content["expected_failures"], "expected_failures")
            given["expected_failures"] = tuple(self.expected_failure(e, p, names) for e, p in entries)
        return Matrix(path=self.path, **given)

    def backend(self, name, entry, place) -> Backend:
        known = DEFAULT_BACKENDS.get(name, Backend(str(name), str(name), (str(name),), f"pip install {name}"))
        self.keys(entry, place, [f.name for f in fields(Backend) if f.name != "name"])
        read = {"distributions": self.strings, "dtypes": self.strings, "jit": self.flags, "optional": self.flag}
        given = {f.name: getattr(known, f.name) for f in fields(Backend)}
        return Backend(**(given | {k: read.get(k, self.text)(v, f"{place}.{k}") for k, v in entry.items()}))

    def wider(self, entry, place) -> Wider:
        self.keys(entry, place, [f.name for f in fields(Wider)], needed=("check", "case", "value", "reason"))
        text = {k: self.text(v, f"{place}.{k}") for k, v in entry.items() if k != "value"}
        return Wider(value=self.number(entry["value"], f"{place}.value"), **text)

    def expected_failure(self, entry, place, names) -> ExpectedFailure:
        required = [f.name for f in fields(ExpectedFailure)]
        self.keys(entry, place, required, needed=required)
        backends = self.strings(entry["backends"], f"{place}.backends")
        for name in backends:
            if name not in names:
                raise self.wrong(f"a backend out of {', '.join(names)}", name, f"{place}.backends")
        return ExpectedFailure(
            self.text(entry["test"], f"{place}.test"), backends, self.text(entry["reason"], f"{place}.reason")
        )

    def wrong(self, expected, received, place) -> DataError:
        return DataError(f"{place or 'top level'}: Expected {expected}. Received: {received!r}", self.path)

    def mapping(self, value, place) -> dict:
        if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
            raise self.wrong("a mapping with names as keys", value, place)
        return value

    def keys(self, value, place, known, needed=()):
        for key in self.mapping(value, place):
            if key not in known:
                raise self.wrong(f"a key out of {', '.join(known)}", key, place)
        for key in needed:
            if key not in value:
                raise self.wrong(f"a key {key}", ", ".join(value), place)

    def entries(self, value, place):
        if not isinstance(value, list):
            raise self.wrong("a list", value, place)
        return [(entry, f"{place}[{i}]") for i, entry in enumerate(value)]

    def text(self, value, place) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.wrong("text (a version in quotes)", value, place)
        return value

    def strings(self, value, place) -> tuple[str, ...]:
        return tuple(self.text(v, p) for v, p in self._filled(value, place))

    def flags(self, value, place) -> tuple[bool, ...]:
        return tuple(self.flag(v, p) for v, p in self._filled(value, place))

    def _filled(self, value, place):
        if value == []:
            raise self.wrong("at least one entry", value, place)
        return self.entries(value, place)

    def flag(self, value, place) -> bool:
        if not isinstance(value, bool):
            raise self.wrong("true or false", value, place)
        return value

    def number(self, value, place) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise self.wrong("a number of at least 0 (YAML reads an exponent only after a dot: 2.0e-6)", value, place)
        return float(value)


def installed(name: str, matrix: Matrix | None = None) -> str | None:
    """The version of a backend that is installed ("unknown" where it does not say), or None; the framework is not imported."""
    entry = (matrix or load()).backend(name)
    try:
        spec = importlib.util.find_spec(entry.module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:  # no origin: a folder that happens to bear the name
        return None
    for distribution in entry.distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def require(name: str, matrix: Matrix | None = None) -> str:
    """The installed version of a backend; MissingBackend naming the install command, UsageError for an unknown name."""
    matrix = matrix or load()
    version = installed(name, matrix)
    if version is None:
        raise MissingBackend(f"Backend {name} is not installed. Install it with: {matrix.backend(name).install}")
    return version


def jobs(matrix: Matrix) -> dict:
    """The job matrix of hosted CI: every backend on the first Python, and the first backend on the others."""
    names, pythons = list(matrix.backends), list(matrix.python) or ["3.11"]
    pairs = [(name, pythons[0]) for name in names] + [(names[0], python) for python in pythons[1:]]
    return {"include": [{"backend": name, "python": python} for name, python in pairs]}


if __name__ == "__main__":
    print(json.dumps(jobs(load())))
