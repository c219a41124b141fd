"""The processes that compute, with one thread each: of this machine, or of a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import joblib
import torch
from joblib.externals.loky import process_executor

CONNECT_SECONDS = 10  # that a cluster has to answer

# A worker that has grown by 300 MB counts as leaking, and another takes its place, which needs
# seconds to begin. To train a VGG takes more than that; and what ours keep is bounded.
process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize


@contextlib.contextmanager
def pool(workers: int, cluster: str | None = None) -> Iterator[joblib.Parallel]:
    """Open the processes that compute, on this machine or of a Dask cluster.

    Results are handed over as they come, in any order.
    """
    options = {"return_as": "generator_unordered", "batch_size": 1}
    if cluster is None:
        with joblib.Parallel(workers, **options) as parallel:
            yield parallel
        return
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise ValueError(
            "Computing on a cluster needs Dask: pip install 'revlib[cluster]'."
        ) from None
    try:
        client = Client(cluster, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"No Dask scheduler answers at '{cluster}' ({error}). Start one with `dask scheduler`, "
            "which prints its address, tcp://HOST:8786 say."
        ) from None
    with (
        client,
        joblib.parallel_config("dask", client=client),
        joblib.Parallel(-1, **options) as parallel,
    ):
        yield parallel


@functools.cache
def end_with_parent() -> None:
    """Let a worker end with the process that started it, however that ends, and only then."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        # Not os.getppid() of now: the parent may have ended before this worker came so far.
        while os.getppid() == parent.pid:
            time.sleep(1)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that hands out
    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: the sums, and so the numbers, depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
