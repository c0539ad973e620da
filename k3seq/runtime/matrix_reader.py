"""Checks what YAML read from `backends_matrix.yml`; every error names the place in the file."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from k3seq.errors import DataError
from k3seq.runtime.matrix import DEFAULT_BACKENDS, DEFAULT_TOLERANCES, Backend, ExpectedFailure, Matrix, Newest, Wider

_VERSION = r"(==|>=|<=|~=|!=|<|>)[0-9][0-9A-Za-z.*+!-]*"
_REQUIREMENT = re.compile(rf"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?({_VERSION}(,{_VERSION})*)?")


class Reader:
    """Turns the values of YAML into dataclasses. A `place` is the path of a value in the file, such as `backends.jax.jit`."""

    def __init__(self, path: Path):
        self.path = path

    def matrix(self, content: Any) -> Matrix:
        """The whole file."""
        self._keys(content, "", [f.name for f in fields(Matrix) if f.name != "path"])
        given = {}
        for key in ("python", "keras"):
            if key in content:
                given[key] = self._strings(content[key], key) if key == "python" else self._text(content[key], key)
        if "backends" in content:
            entries = self._mapping(content["backends"], "backends")
            given["backends"] = {name: self._backend(name, entry or {}, f"backends.{name}") for name, entry in entries.items()}
            if not entries:
                raise self._wrong("at least one backend", content["backends"], "backends")
        names = list(given.get("backends", DEFAULT_BACKENDS))
        if "tolerances" in content:
            tolerances = {k: dict(v) for k, v in DEFAULT_TOLERANCES.items()}
            for dtype, checks in self._mapping(content["tolerances"], "tolerances").items():
                place = f"tolerances.{dtype}"
                read = {c: self._number(v, f"{place}.{c}") for c, v in self._mapping(checks, place).items()}
                tolerances.setdefault(dtype, {}).update(read)
            given["tolerances"] = tolerances
        if "newest" in content:
            self._keys(content["newest"], "newest", ["python", "keras"], needed=["python", "keras"])
            python, keras = content["newest"]["python"], content["newest"]["keras"]
            given["newest"] = Newest(self._text(python, "newest.python"), self._requirement(keras, "newest.keras"))
        if "wider" in content:
            given["wider"] = tuple(self._wider(e, p) for e, p in self._entries(content["wider"], "wider"))
        if "expected_failures" in content:
            entries = self._entries(content["expected_failures"], "expected_failures")
            given["expected_failures"] = tuple(self._expected_failure(e, p, names) for e, p in entries)
        return Matrix(path=self.path, **given)

    def _backend(self, name, entry, place) -> Backend:
        known = DEFAULT_BACKENDS.get(name, Backend(str(name), str(name), (str(name),), f"pip install {name}"))
        self._keys(entry, place, [f.name for f in fields(Backend) if f.name != "name"])
        read = {name: self._strings for name in ("distributions", "needs", "dtypes")}
        read |= {"jit": self._flags, "optional": self._flag, "trains": self._flag, "newest": self._requirement}
        return replace(known, **{k: read.get(k, self._text)(v, f"{place}.{k}") for k, v in entry.items()})

    def _wider(self, entry, place) -> Wider:
        self._keys(entry, place, [f.name for f in fields(Wider)], needed=("check", "case", "value", "reason"))
        text = {k: self._text(v, f"{place}.{k}") for k, v in entry.items() if k != "value"}
        return Wider(value=self._number(entry["value"], f"{place}.value"), **text)

    def _expected_failure(self, entry, place, names) -> ExpectedFailure:
        required = [f.name for f in fields(ExpectedFailure)]
        self._keys(entry, place, required, needed=required)
        backends = self._strings(entry["backends"], f"{place}.backends")
        for name in backends:
            if name not in names:
                raise self._wrong(f"a backend out of {', '.join(names)}", name, f"{place}.backends")
        return ExpectedFailure(
            self._text(entry["test"], f"{place}.test"), backends, self._text(entry["reason"], f"{place}.reason")
        )

    def _wrong(self, expected, received, place) -> DataError:
        return DataError(f"{place or 'top level'}: Expected {expected}. Received: {received!r}", self.path)

    def _mapping(self, value, place) -> dict:
        if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
            raise self._wrong("a mapping with names as keys", value, place)
        return value

    def _keys(self, value, place, known, needed=()):
        for key in self._mapping(value, place):
            if key not in known:
                raise self._wrong(f"a key out of {', '.join(known)}", key, place)
        for key in needed:
            if key not in value:
                raise self._wrong(f"a key {key}", ", ".join(value), place)

    def _entries(self, value, place):
        if not isinstance(value, list):
            raise self._wrong("a list", value, place)
        return [(entry, f"{place}[{i}]") for i, entry in enumerate(value)]

    def _text(self, value, place) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self._wrong("text (a version in quotes)", value, place)
        return value

    def _requirement(self, value, place) -> str:
        if not _REQUIREMENT.fullmatch(self._text(value, place)):
            raise self._wrong("a requirement for pip, such as jax>=0.12", value, place)
        return value

    def _strings(self, value, place) -> tuple[str, ...]:
        return tuple(self._text(v, p) for v, p in self._filled(value, place))

    def _flags(self, value, place) -> tuple[bool, ...]:
        return tuple(self._flag(v, p) for v, p in self._filled(value, place))

    def _filled(self, value, place):
        if value == []:
            raise self._wrong("at least one entry", value, place)
        return self._entries(value, place)

    def _flag(self, value, place) -> bool:
        if not isinstance(value, bool):
            raise self._wrong("true or false", value, place)
        return value

    def _number(self, value, place) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise self._wrong("a number of at least 0 (YAML reads an exponent only after a dot: 2.0e-6)", value, place)
        return float(value)
