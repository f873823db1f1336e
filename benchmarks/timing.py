"""How everything here is measured: actions take turns in one run, so that a busy machine hits all of them alike."""

import resource
import time
from typing import NamedTuple

import numpy as np
import torch


class Row(NamedTuple):
    """A line of the table."""

    what: str
    over: str = ''  # what its time is divided by
    ratio: float | None = None  # None: there is none
    goal: str = ''  # such as '<= 1.10'
    note: str = ''


def peak_bytes(action, device):
    """The most memory that `action` holds at one moment beside what there was before it.

    On a CPU the profiler's allocations and releases are added up; on an accelerator its own statistics are read.
    """
    if device.type != 'cpu':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    return int(np.cumsum(changes).max(initial=0))


def children_time():
    """Processor time of the finished processes that this one started: a clock for `seconds`."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(actions, device, repeats, clock=time.perf_counter):
    """Median time of each of several actions that take turns; the first turn warms up.

    clock: time.process_time counts the processor's time of this process, which a busy machine changes little.
    """

    def once(action):
        start = clock()
        action()
        if device.type != 'cpu':
            torch.cuda.synchronize()
        return clock() - start

    for action in actions:
        once(action)
    return np.median([[once(action) for action in actions] for _ in range(repeats)], axis=0).tolist()
