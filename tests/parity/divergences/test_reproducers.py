"""Every reproducer runs on this backend and finds what `known.yml` says."""

import inspect
from importlib import import_module

import keras
import pytest

from k3seq.parity.divergences import load
from k3seq.parity.divergences.observation import Observation, observe

ENTRIES = load()
MODULES = ("layers", "numbers", "recurrent", "shapes", "training")
# Depends on the processor, the version of jaxlib and XLA_FLAGS.
DEPENDS_ON_MACHINE = ("compiled-on-a-cpu",)


# The reproducer of softmax over one element warns, and others build small models again and again.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.id for entry in ENTRIES])
def test_a_reproducer_finds_what_the_file_says(entry, backend):
    answer = Observation(**observe({"reproducer": entry.reproducer}))
    assert answer.seen and answer.control
    if answer.present is None:
        assert answer.value is not None and answer.control_value is not None and answer.cured is None
        return  # test_status.py compares the values of two backends
    assert answer.cured, answer.control
    if keras.__version__ == entry.seen_with["keras"] and not (answer.present is False and entry.id in DEPENDS_ON_MACHINE):
        assert answer.present == (backend in entry.backends), answer.seen


def test_every_reproducer_has_its_entry():
    modules = [import_module(f"k3seq.parity.divergences.{name}") for name in MODULES]
    reproducers = [
        f"{module.__name__}:{name}"
        for module in modules
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
        if not inspect.signature(value).parameters
    ]
    assert sorted(reproducers) == sorted(entry.reproducer for entry in ENTRIES)
