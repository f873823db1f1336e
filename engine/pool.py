"""Processes that do the work of one: jobs handed out, results in their order."""

from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from wsol.errors import Unwritable


@contextmanager
def in_processes(workers, start=None):
    """A function (function, jobs) -> results in order, over `workers` processes, a few jobs ahead; 0: in this process.

    start() is called once in each process.
    """
    if not workers:
        yield map
        return

    def ordered(function, jobs):
        waiting = deque()
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) > 16 * workers:  # bounds what is held in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    with ProcessPoolExecutor(workers, initializer=start) as pool:
        pool.submit(int).result()  # the processes start here, before an accelerator is in use
        try:
            yield ordered
        except BrokenProcessPool:
            raise Unwritable('a process was ended from outside (out of memory?): give fewer --workers') from None
        finally:
            pool.shutdown(cancel_futures=True)
