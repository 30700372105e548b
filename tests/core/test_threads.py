"""Slabs of a loop on threads: every index once, whatever the number of threads, and errors come out."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch

from medwave.core.threads import limited_threads, run_each, run_slabs, thread_count


@pytest.fixture
def set_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@numba.njit(nogil=True)
def add_squares(start, stop, out):
    for i in range(start, stop):
        out[i] += i * i


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 7, 64])
def test_every_index_is_visited_once(set_threads, threads, length):
    set_threads(threads)
    counted, compiled = np.zeros(length), np.zeros(length)

    def count(start, stop, out):
        out[start:stop] += 1

    run_slabs(count, length, counted)
    run_slabs(add_squares, length, compiled)
    np.testing.assert_array_equal(counted, 1)
    np.testing.assert_array_equal(compiled, np.arange(length) ** 2)


def test_slabs_are_even_and_one_per_thread(set_threads):
    set_threads(3)
    seen = []
    run_slabs(lambda start, stop: seen.append((start, stop)), 10)
    assert sorted(seen) == [(0, 3), (3, 6), (6, 10)]
    seen.clear()
    run_slabs(lambda start, stop: seen.append((start, stop)), 2)
    assert sorted(seen) == [(0, 1), (1, 2)]


def test_slabs_run_at_the_same_time(set_threads):
    set_threads(3)
    meeting = threading.Barrier(3)
    run_slabs(lambda start, stop: meeting.wait(timeout=10), 3)


@pytest.mark.parametrize("bad", range(3))
def test_an_error_in_any_slab_comes_out_after_all_have_ended(set_threads, bad):
    set_threads(3)
    ended = []

    def kernel(start, stop):
        if start == bad:
            raise ZeroDivisionError(f"slab {start}")
        time.sleep(0.05)
        ended.append(start)

    with pytest.raises(ZeroDivisionError, match=f"slab {bad}"):
        run_slabs(kernel, 3)
    assert len(ended) == 2  # nothing writes to the arrays any more
    out = np.zeros(9)
    run_slabs(add_squares, 9, out)  # and the pool still works
    np.testing.assert_array_equal(out, np.arange(9) ** 2)


def test_more_threads_later_are_more_threads(set_threads):
    for threads in (2, 4, 3):
        set_threads(threads)
        meeting = threading.Barrier(threads)
        run_slabs(lambda start, stop, meeting=meeting: meeting.wait(timeout=10), threads)


def test_loops_may_be_run_from_several_threads_at_once(set_threads):
    set_threads(3)
    results = [np.zeros(1000) for _ in range(8)]
    callers = [threading.Thread(target=run_slabs, args=(add_squares, 1000, out)) for out in results]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)
        assert not caller.is_alive()
    for out in results:
        np.testing.assert_array_equal(out, np.arange(1000) ** 2)


FORK = """
import os, time, warnings
import numpy as np, torch
from medwave.core.threads import limited_threads, run_each, run_slabs, thread_count
warnings.simplefilter("ignore")  # newer Pythons warn of threads at a fork: that is what is tried here
def fill(start, stop, out):
    out[start:stop] = 7
torch.set_num_threads(2)
def run():
    out = np.zeros(9)
    run_slabs(fill, 9, out)
    return bool((out == 7).all())
assert run()
time.sleep(0.2)  # the pool's thread is idle now: a child that trusted it would wait for ever
child = os.fork()
if child == 0:
    torch.set_num_threads(2)  # a forked torch counts one
    os._exit(0 if run() else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert run()
print("child", status)
"""


def test_loops_work_in_a_forked_child():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "child 0", done.stderr


WITHOUT_TORCH = """
import sys
import medwave.cli.app, medwave.workflows.register, medwave.workflows.save
from medwave.core.threads import limited_threads, run_slabs, thread_count
def seen():
    slabs = []
    run_slabs(lambda start, stop: slabs.append(stop - start), 12)
    return sorted(slabs)
assert seen() == [4, 4, 4], seen()
with limited_threads(2):
    assert seen() == [6, 6], seen()
    with limited_threads(0):
        assert thread_count() == 2
assert thread_count() == 3
assert "torch" not in sys.modules, "registration on CPU imported torch"
import torch
torch.set_num_threads(4)
assert thread_count() == 4
"""


def test_loops_count_threads_without_torch_and_registration_does_not_import_it():
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    code = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
def test_each_item_once_in_order_with_loops_of_one_thread(threads):
    with limited_threads(threads):
        found = run_each(lambda item: (item, thread_count()), range(7))
        assert found == [(item, 1) for item in range(7)]
        assert thread_count() == threads
        assert run_each(str, []) == []


def test_an_item_alone_keeps_all_threads():
    with limited_threads(3):
        assert run_each(lambda _: thread_count(), ["one"]) == [3]


def test_the_error_of_an_item_comes_through_and_threads_are_as_before():
    with limited_threads(2):
        with pytest.raises(ZeroDivisionError):
            run_each(lambda item: 1 / item, [1, 0, 2])
        assert run_each(lambda item: 2 * item, [1, 2, 3]) == [2, 4, 6]


def test_little_work_takes_few_threads():
    seen = []
    with limited_threads(4):
        run_slabs(lambda start, stop: seen.append((start, stop)), 16, most=2)
    assert sorted(seen) == [(0, 8), (8, 16)]
