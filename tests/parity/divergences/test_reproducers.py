"""Every reproducer runs on this backend and finds what the catalogue says of it."""

import inspect
from importlib import import_module

import keras
import pytest

from k3seq.parity.divergences import load
from k3seq.parity.divergences.observation import Observation, observe

ENTRIES = load()
ROOMS = ("layers", "numbers", "recurrent", "shapes", "training")


# The trap that one of them shows, softmax over one element, warns; others build small models again and again
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.id for entry in ENTRIES])
def test_the_catalogue_says_what_the_reproducer_finds(entry, backend):
    answer = Observation(**observe({"reproducer": entry.reproducer}))
    assert answer.seen and answer.control
    if answer.present is None:
        assert answer.value is not None and answer.control_value is not None and answer.cured is None
        return  # tests/divergences/test_judge.py compares the values of two backends
    assert answer.cured, answer.control
    if keras.__version__ == entry.seen_with["keras"]:
        assert answer.present == (backend in entry.backends), answer.seen


def test_every_reproducer_has_its_entry():
    rooms = [import_module(f"k3seq.parity.divergences.{room}") for room in ROOMS]
    takes_nothing = [
        f"{room.__name__}:{name}"
        for room in rooms
        for name, value in vars(room).items()
        if inspect.isfunction(value) and value.__module__ == room.__name__ and not name.startswith("_")
        if not inspect.signature(value).parameters
    ]
    assert sorted(takes_nothing) == sorted(entry.reproducer for entry in ENTRIES)
