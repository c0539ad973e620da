"""Freed memory stays with the process: the second time it is touched, no page of it is new."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once
PAGES = """
import resource
from k3seq.runtime.memory import keep_memory
kept = keep_memory()
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(kept, touch())
"""


def pages(setting):
    environment = os.environ | {"K3SEQ_KEEP_MEMORY": setting}
    done = subprocess.run([sys.executable, "-c", PAGES], env=environment, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is told so where it is glibc's")
def test_a_block_of_64_mib_has_new_pages_the_first_time_only():
    (kept, few), (left, many) = pages("1"), pages("0")
    assert (kept, left) == (True, False)
    assert many > 100 > few
