"""All methods on the cells of one shape, in one process that takes them in turn. Started by ``wavelets.py``.

``python _wavelet_run.py REQUEST`` reads a JSON request (``shape``, ``wavelets``, ``methods``, ``device``, ``threads``,
``rounds``, ``seconds``, ``passes``, ``memory``) and prints JSON: wavelet -> method -> pass -> figures.

Passes
    ``forward``: from a float32 tensor to new coefficient tensors, which are dropped before the next call.
    ``both``: the same on a tensor that requires a gradient, then from given cotangents to a new gradient.
    ``inverse``: from coefficients to a new tensor.
Each call of a method follows a call of ``tensor.clone()`` of the input, also dropped; a figure is the ratio of the two.
Methods take turns in rotating order. The clock is the CPU time of the process with one thread, wall time with more,
events on the device elsewhere. A method that has used up its seconds is not called again (but three times at least).

Memory: the highest resident size during one call, less that before it (on a GPU: allocated bytes), over the input's
size; of forward the output is 1 of it, of both the output and the gradient are 2.
"""

from __future__ import annotations

import gc
import json
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _wavelet_methods import METHODS, Case, Method, Unavailable

LEAST_CALLS = 3
Call = Callable[[], Any]
Clock = Callable[[Call], float]


def main() -> None:
    warnings.simplefilter("ignore")  # of the peers, which warn about numpy and torch
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    results = {wavelet: run(Case(tuple(request["shape"]), wavelet), request) for wavelet in request["wavelets"]}
    print(json.dumps(results))


def run(case: Case, request: dict[str, Any]) -> dict[str, Any]:
    """Every method and pass of one cell."""
    device = request["device"]
    torch.manual_seed(0)
    x = torch.randn(case.shape, device=device)
    clock = device_seconds if device != "cpu" else cpu_seconds if request["threads"] == 1 else wall_seconds
    found: dict[str, Any] = {}
    made: dict[str, Method] = {}
    for name in request["methods"]:
        try:
            made[name] = METHODS[name](case, device)
        except Unavailable as error:
            found[name] = {"skipped": str(error)}
            continue
        found[name] = {"round_trip_error": round_trip_error(made[name], x)}
    for kind in request["passes"]:
        calls = {name: call for name, m in made.items() if (call := call_of(m, kind, x)) is not None}
        for name, figures in interleaved(calls, x.clone, clock, request).items():
            found[name][kind] = figures
        for name, call in calls.items() if request["memory"] else ():
            found[name][kind]["peak"] = peak_bytes(call, device) / (4 * x.numel())
    return found


def round_trip_error(method: Method, x: torch.Tensor) -> float:
    """Largest error of the inverse away from the borders: that the method does what it says."""
    with torch.no_grad():
        back = method.inverse(method.forward(x))
    inner = (..., *[slice(16, n - 16) for n in x.shape[2:]])
    return float((back[inner] - x[inner]).abs().max())


def call_of(method: Method, kind: str, x: torch.Tensor) -> Call | None:
    """A pass as a call without arguments, or None where the method has none."""
    if kind == "both":
        if not method.differentiable:
            return None
        start = x.clone().requires_grad_()
        cotangents = [torch.randn_like(c) for c in method.forward(x)]
        return lambda: torch.autograd.grad(method.forward(start), start, cotangents)
    function = method.forward
    given: Any = x
    if kind == "inverse":
        function, given = method.inverse, tuple(c.contiguous() for c in method.forward(x))

    def call() -> Any:
        with torch.no_grad():
            return function(given)

    return call


def interleaved(calls: dict[str, Call], clone: Call, clock: Clock, request: dict[str, Any]) -> dict[str, Any]:
    """Median and quartiles of the ratio to clone, and median milliseconds of both."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in (clone, *calls.values()):
        call()
    names = list(calls)
    for turn in range(request["rounds"]):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            spent = sum(own for own, _ in taken[name])
            if len(taken[name]) < LEAST_CALLS or spent < request["seconds"]:
                reference = clock(clone)
                taken[name].append((clock(calls[name]), reference))
    return {name: figures(pairs) for name, pairs in taken.items()}


def figures(pairs: list[tuple[float, float]]) -> dict[str, float]:
    ratios = [own / reference for own, reference in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    own, reference = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    return {"ratio": middle, "low": low, "high": high, "calls": len(pairs), "ms": own, "clone_ms": reference}


def cpu_seconds(call: Call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def wall_seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def device_seconds(call: Call) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def peak_bytes(call: Call, device: str) -> int:
    """Highest memory during a call, less that before it."""
    call()
    gc.collect()
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak (Linux)
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
