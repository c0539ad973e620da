"""Reads `known.yml`. Imports no Keras."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from k3seq.errors import DataError, UsageError, require_extra

FILE = Path(__file__).with_name("known.yml")
KINDS = ("fault", "difference", "trap")


@dataclass(frozen=True)
class Divergence:
    """One known divergence.

    Args:
        id: its name.
        title: one line.
        kind: one of `KINDS`.
        backends: where it occurs.
        symptom: what a user observes.
        cause: why it happens.
        answer: how k3seq avoids it.
        reproducer: `package.module:function` that returns an `observation.Observation`.
        seen_with: the versions it was seen with.
    """

    id: str
    title: str
    kind: str
    backends: tuple[str, ...]
    symptom: str
    cause: str
    answer: str
    reproducer: str
    seen_with: dict[str, str] = field(default_factory=dict)


def load(path: Path | None = None) -> list[Divergence]:
    """The divergences in the order of the file.

    Args:
        path: the file; None: k3seq's own.

    Raises:
        DataError: an entry lacks a key, has an unknown key or an empty value, or repeats the id of another.
    """
    with require_extra("parity"):
        import yaml

    path = path or FILE
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    default, found = content.get("seen_with", {}), {}
    for entry in content["divergences"]:
        read = _read(entry, default, path)
        if read.id in found:
            raise DataError(f"Expected each id once. Received: {read.id} again", path)
        found[read.id] = read
    return list(found.values())


def _read(entry: dict[str, Any], default: Mapping[str, str], path: Path) -> Divergence:
    name = entry.get("id", "an entry without id")
    known = {f.name for f in fields(Divergence)}
    entry = {"seen_with": default} | entry
    if set(entry) != known or not all(entry.values()):
        wrong = sorted(set(entry) ^ known) or [k for k, v in entry.items() if not v]
        raise DataError(f"{name}: Expected {', '.join(sorted(known))}, each with a value. Received: {', '.join(wrong)}", path)
    if entry["kind"] not in KINDS:
        raise DataError(f"{name}: Expected a kind out of {', '.join(KINDS)}. Received: {entry['kind']}", path)
    reproducer = f"{__package__}.{entry['reproducer']}"
    return Divergence(**(entry | {"backends": tuple(entry["backends"]), "reproducer": reproducer}))


def choose(names: Iterable[str] = (), known: list[Divergence] | None = None) -> list[Divergence]:
    """The divergences with these ids, in the order of the file; without ids all of them.

    Raises:
        UsageError: an unknown id.
    """
    names, known = list(names), load() if known is None else known
    ids = [entry.id for entry in known]
    for name in names:
        if name not in ids:
            raise UsageError(f"Expected a divergence out of {', '.join(ids)}. Received: {name}")
    return [entry for entry in known if not names or entry.id in names]
