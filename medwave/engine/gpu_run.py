"""The iterations of one scale on a CUDA device without waiting for it: scalars and decisions stay there.

An iteration is as in :class:`medwave.engine.refine.CompositiveRun`. After the force and the smoothed update a kernel of
one program notes the similarity, sets the scale of the step, and sets a flag when the longest vector vanishes or the
similarity has converged; the last kernel of an iteration writes no field once the flag is set. So the host looks every
:data:`LOOK` iterations only, and what it finds is what a look at every iteration would have found.

All iterations of a scale are the same launches on the same memory. The first one is launched kernel by kernel, which
compiles them; then, with local correlation, one is recorded as a CUDA graph, which is one launch where ten kernels take
the host half a millisecond: more than they run at coarse scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medwave.engine import gpu_sampling
from medwave.engine.gpu_loops import Tiling, TritonLoops
from medwave.engine.loops import CONVERGENCE

if TYPE_CHECKING:
    from medwave.engine.refine import CompositiveRun

LOOK = 8
GRAPHS = True
_BLOCK = 1024


def iterate(run: CompositiveRun, field: Tensor, report: Callable[[int, float], Any]) -> list[float]:
    """Work on ``field`` in place until the similarity has converged; returns its history."""
    loops, level, similarity = run.loops, run.level, run.similarity
    assert isinstance(loops, TritonLoops)
    with torch.cuda.device_of(field):
        queue = _Queue(loops, run, field)
        history: list[float] = []
        once = queue.iteration
        for iteration in range(level.iterations):
            if iteration == 1 and GRAPHS and similarity.recorded and field.is_cuda:
                once = queue.recorded()
            once()
            if (iteration + 1) % LOOK and iteration + 1 < level.iterations:
                continue
            noted, stopped = queue.state[::4].tolist()
            news = [value / similarity.total_weight for value in queue.history[len(history) : noted].tolist()]
            for value in news:
                report(len(history), value)
                history.append(value)
            if stopped:
                break
    return history


class _Queue:
    """The memory that the iterations of a scale share, and the launches of one."""

    def __init__(self, loops: TritonLoops, run: CompositiveRun, field: Tensor) -> None:
        self.loops, self.run, self.field = loops, run, field
        device, programs = field.device, Tiling(field.shape[1:]).count
        self.length = max(16, 1 << (run.level.iterations - 1).bit_length())
        self.history = torch.zeros(self.length, dtype=torch.float64, device=device)
        self.state = torch.zeros(8, dtype=torch.int32, device=device)
        self.scale = torch.zeros(1, device=device)
        self.longest, self.unread = (torch.empty(programs, device=device) for _ in range(2))
        self.rows = torch.empty_like(field)
        self.stop = self.state[4:]

    def iteration(self) -> None:
        """Queue one iteration."""
        run, loops, level, similarity = self.run, self.loops, self.run.level, self.run.similarity
        loops.warp(run.moving, self.field, run.warped)
        similarity.enqueue(run.warped, run.update)
        loops.smooth_gated(run.update, level.update_sigma, run.smoothed, loops.open, self.longest, self.rows)
        window, tolerance = CONVERGENCE
        gpu_sampling.advance[(1,)](
            similarity.partial, len(similarity.partial), self.longest, len(self.longest), self.history, self.state,
            self.scale, run.step, WINDOW=window, TOLERANCE=tolerance, LENGTH=self.length, BLOCK=_BLOCK, num_warps=1,
        )  # fmt: skip
        loops.compose_scaled(self.field, run.smoothed, self.scale, run.update)
        loops.smooth_gated(run.update, level.field_sigma, self.field, self.stop, self.unread, self.rows)

    def recorded(self) -> Callable[[], None]:
        """One iteration as a graph; on a stream of its own, which other threads do not disturb."""
        graph, stream, current = torch.cuda.CUDAGraph(), torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            graph.capture_begin(capture_error_mode="thread_local")
            self.iteration()
            graph.capture_end()
        current.wait_stream(stream)
        return graph.replay
