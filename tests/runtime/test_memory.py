"""Freed memory stays with the process: a block of the same size has no new pages the second time."""

import os
import platform
import subprocess
import sys

import pytest

from k3seq.runtime.memory import keeping_environment

pytestmark = pytest.mark.once
PAGES = """
import resource, sys
from k3seq.runtime.memory import keep_memory, kept_by_environment
kept = keep_memory() if sys.argv[1] == "call" else kept_by_environment()
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(kept, touch())
"""


def pages(way, setting):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"K3SEQ_KEEP_MEMORY": setting} | (keeping_environment() if (way, setting) == ("environment", "1") else {})
    done = subprocess.run([sys.executable, "-c", PAGES, way], env=environment, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc's malloc")
@pytest.mark.parametrize("way", ["call", "environment"])
def test_a_block_of_64_mib_has_new_pages_the_first_time_only(way, monkeypatch):
    monkeypatch.delenv("K3SEQ_KEEP_MEMORY", raising=False)
    (kept, few), (left, many) = pages(way, "1"), pages(way, "0")
    assert (kept, left) == (True, False)
    assert many > 100 > few
