"""Freed memory: kept in the block, given back after it."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import contextlib, resource
from medwave.core.memory import freed_memory_kept

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held_kb():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 1024

def used():
    for _ in range(2):
        first, second = b"1" * 40_000_000, b"1" * 80_000_000
        del first, second

with freed_memory_kept() if {kept} else contextlib.nullcontext():
    with freed_memory_kept() if {kept} else contextlib.nullcontext():
        used()
    before = faults()
    used()
    print(faults() - before)
print(held_kb())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_arrays_taken_again_cost_no_new_pages_and_nothing_is_held_afterwards():
    def run(kept: bool) -> list[int]:
        words = [sys.executable, "-c", COUNT.format(kept=kept)]
        return [int(line) for line in subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()]

    (anew, held_anew), (again, held_again) = run(False), run(True)
    assert again < anew / 20
    assert held_again < held_anew + 20_000


def test_the_block_may_fail_and_be_entered_twice():
    from medwave.core.memory import freed_memory_kept

    with pytest.raises(ValueError, match="inside"), freed_memory_kept(), freed_memory_kept():
        raise ValueError("inside")
    with freed_memory_kept():
        pass
