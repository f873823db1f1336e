"""A pool of worker processes that returns results in the order of the jobs."""

from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from wsol.errors import Unwritable


@contextmanager
def in_processes(workers, start=None):
    """A context with a parallel `map`: (function, jobs) -> iterator of results in order. 0 workers: the built-in map.

    start() is called once in each worker process.
    """
    if not workers:
        yield map
        return

    def ordered(function, jobs):
        waiting = deque()
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) > 16 * workers:  # bounds the memory of pending results
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    with ProcessPoolExecutor(workers, initializer=start) as pool:
        pool.submit(int).result()  # forks now, before an accelerator is in use
        try:
            yield ordered
        except BrokenProcessPool:
            raise Unwritable('a worker process was killed (out of memory?): give fewer --workers') from None
        finally:
            pool.shutdown(cancel_futures=True)
