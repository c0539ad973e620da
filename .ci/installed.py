"""Checks that what is installed is what constraints.txt pins: `python .ci/installed.py constraints.txt`."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def differences(constraints):
    """Lines `name: Expected 1.0. Received: 2.0` for pins that are not what is installed; `+cpu` is no difference."""
    for line in constraints.splitlines():
        pin = line.split("#")[0].strip()
        if pin:
            name, _, wanted = pin.partition("==")
            try:
                found = version(name)
            except PackageNotFoundError:
                found = "not installed"
            if found.split("+")[0] != wanted:
                yield f"{name}: Expected {wanted}. Received: {found}"


if __name__ == "__main__":
    found = list(differences(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("\n".join(found) or "every pinned version is installed")
    sys.exit(bool(found))
