"""Parity: the same layer or model on every backend, from the same weights and inputs, compared.

    from k3seq.parity import Case, Spec, run_parity

    case = Case("dense", "keras.layers:Dense", {"units": 4}, inputs=Spec((3, 5)))
    report = run_parity([case])
    assert report.ok, report.failures()

Nothing here imports keras: one process per backend does (`worker.py` and what it imports). Names load on first use, so that
pytest, which loads the plugin in every run, does not wait for NumPy.
"""

import importlib

_HOMES = {
    "case": ("CHECKS", "DTYPES", "Case", "Spec"),
    "pool": ("Pool",),
    "rows": ("Report", "Row"),
    "suite": ("resolve", "run_parity"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["CHECKS", "DTYPES", "Case", "Pool", "Report", "Row", "Spec", "resolve", "run_parity"]


def __getattr__(name):
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"k3seq.parity.{_HOME_OF[name]}"), name)
    raise AttributeError(f"Expected one of {', '.join(__all__)} in k3seq.parity. Received: {name}")


def __dir__():
    return list(__all__)
