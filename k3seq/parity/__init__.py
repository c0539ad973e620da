"""Parity: the same layer or model on every backend, from the same weights and inputs, compared.

    from k3seq.parity import Case, Spec, run_parity

    case = Case("dense", "keras.layers:Dense", {"units": 4}, inputs=Spec((3, 5)))
    report = run_parity([case])
    assert report.ok, report.failures()

Nothing here imports Keras: the worker processes do, one per backend (`worker.py` and what it imports). Names load on first use,
because pytest loads the plugin in every run and should not wait for NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from k3seq.parity.case import Case, Spec
    from k3seq.parity.pool import Pool
    from k3seq.parity.rows import Report, Row
    from k3seq.parity.suite import resolve, run_parity
    from k3seq.parity.verdicts import CHECKS, DTYPES, VERDICTS

_MODULE_OF = {
    **dict.fromkeys(("CHECKS", "DTYPES", "VERDICTS"), "verdicts"),
    **dict.fromkeys(("Case", "Spec"), "case"),
    "Pool": "pool",
    **dict.fromkeys(("Report", "Row"), "rows"),
    **dict.fromkeys(("resolve", "run_parity"), "suite"),
}

__all__ = ["CHECKS", "DTYPES", "VERDICTS", "Case", "Pool", "Report", "Row", "Spec", "resolve", "run_parity"]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"k3seq.parity.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"Expected one of {', '.join(__all__)} in k3seq.parity. Received: {name}")


def __dir__() -> list[str]:
    return list(__all__)
