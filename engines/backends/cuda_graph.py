"""Capture CUDA graphs with torch, protected from other threads, so that a failed capture leaves the device usable."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Hold it while a CUDA graph is captured, and in other threads for every operation that would invalidate the capture: loading an
# engine, opening and closing a video stream, a decoder or an encoder, and waiting for a whole device. CUDA invalidates a
# capture for some of these in every capture mode. The lock is reentrant; to enqueue or replay work does not need it.
CAPTURE_LOCK = threading.RLock()


def capture_graph(torch: Any, work: Callable[[], object], stream: Any, pool: Any = None) -> Any:
    """Capture what `work` enqueues on a torch stream; return the CUDA graph.

    Raises what `work` raises, or RuntimeError where CUDA refuses the capture. `pool` is a
    memory pool of torch, None for a new one; do not use it again after a failure.
    """
    graph = torch.cuda.CUDAGraph()
    pool = torch.cuda.graph_pool_handle() if pool is None else pool
    with CAPTURE_LOCK, torch.cuda.stream(stream), _no_collection():
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            work()
        except BaseException:
            with suppress(RuntimeError):  # the error under way is the reason
                graph.capture_end()
            _leave_pool(torch, pool)
            raise
        try:
            graph.capture_end()
        except RuntimeError:
            _leave_pool(torch, pool)
            raise
    return graph


def _leave_pool(torch: Any, pool: Any) -> None:
    """Make torch's allocator leave its capture mode, which a failed `capture_end` does not do: it would never free again."""
    with suppress(RuntimeError, AttributeError):
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Suspend garbage collection: memory that the capturing thread frees, such as a decoder's surface, spoils its capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
