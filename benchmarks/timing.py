"""Measurement: actions take turns within one run, so that load on the machine affects all of them alike."""

import resource
import time
from typing import NamedTuple

import numpy as np
import torch


class Row(NamedTuple):
    """A line of the table."""

    what: str
    over: str = ''  # denominator of the ratio
    ratio: float | None = None  # None: no ratio
    goal: str = ''  # for example '<= 1.10'
    note: str = ''


def peak_bytes(action, device):
    """Peak memory allocated during `action`, beyond what was allocated before.

    On a CPU from the profiler's allocation events, on an accelerator from its statistics.
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
    """CPU time of this process's finished children: a clock for `seconds`."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(actions, device, repeats, clock=time.perf_counter):
    """Median time of each of several actions that take turns; the first turn is a warm-up.

    clock: time.process_time measures this process's CPU time, which depends less on other load.
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
