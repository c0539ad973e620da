"""What every command does before and after its work: choose the backend, check the outputs, write the JSON."""

import os
import sys
import time
from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar

import typer

from k3seq.data.files import print_to_standard_error
from k3seq.errors import UsageError
from k3seq.report.record import check_outputs, write_json
from k3seq.runtime import matrix


def choose_backend(name: str | None) -> str:
    """Chooses the backend: `--backend`, else KERAS_BACKEND, else the first one installed, which is then printed on stderr.

    Raises:
        MissingBackend: it is not installed, or none is.
        UsageError: there is no such backend, or keras is already imported on another one.
    """
    known = matrix.load()
    asked = name or os.environ.get("KERAS_BACKEND")
    chosen = asked or next((n for n in known.training if matrix.installed(n, known)), next(iter(known.backends)))
    matrix.require(chosen, known)
    if not asked:
        print(f"k3seq: backend {chosen} (neither --backend nor KERAS_BACKEND is given)", file=sys.stderr)
    keras = sys.modules.get("keras")
    if keras is not None and keras.config.backend() != chosen:
        raise UsageError(f"Expected keras on {chosen}. Received: keras already imported on {keras.config.backend()}")
    os.environ["KERAS_BACKEND"] = chosen
    # Keras imports TensorFlow on every backend when it saves a model: its start-up lines are noise on the others.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if chosen == "tensorflow" else "3")
    return chosen


class Invocation:
    """One command, from its options to its JSON. It checks the backend and the outputs before the work begins.

    Args:
        backend: value of `--backend`.
        json: value of `--json`.
        outputs: option -> path of the other files that the command writes.
        binds: whether the command uses keras in this process. False: the command chooses its backends itself.

    Attributes:
        arguments: the command line of this process, for the JSON.
    """

    arguments: ClassVar[list[str]] = []

    def __init__(
        self,
        backend: str | None,
        json: str | PathLike[str] | None,
        outputs: Mapping[str, str | PathLike[str] | None] | None = None,
        binds: bool = True,
    ):
        self.started, self.json = time.time(), json
        written = {"--json": json, **(outputs or {})}
        check_outputs(written)
        print_to_standard_error(written.values())
        self.backend = choose_backend(backend) if binds else backend
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of worker processes

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the JSON. A result with an `exit_code` other than 0 ends the command with it."""
        write_json(self.json, self.arguments, self.backend, result, self.started)
        if result.get("exit_code"):
            raise typer.Exit(result["exit_code"])


def listed(names: str | None) -> list[str]:
    """The names of an option such as `--backends A,B`."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def backend_names(several: str | None, one: str | None) -> list[str]:
    """The names of `--backends A,B`, or of `--backend`; UsageError where both are given."""
    if several and one:
        raise UsageError("Expected --backend or --backends. Received: both")
    return listed(several or one)
