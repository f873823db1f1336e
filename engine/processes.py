"""The processes of a run: those that torchrun starts, the signals that stop them, and what they tell each other."""

import functools
import os
import signal
import sys
import threading
from datetime import timedelta

import torch
import torch.distributed as dist

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_signals = []  # those that came and ask for a stop
_control = []  # the group of processes for words between hosts, beside the one for gradients


def _note(signal_number, frame):
    _signals.append(signal_number)


@functools.cache
def protect_workers():
    """From now on, processes that this one forks leave stop signals to it: loaders' workers, pools.

    `timeout`, torchrun and SLURM may signal every process of a run, but only the main one can save its state.
    """
    os.register_at_fork(after_in_child=_follow_parent)


def _follow_parent():
    """In a forked process: of STOP_SIGNALS obey only a SIGTERM from the parent; end when the parent is gone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parent = os.getppid()

    def wait():
        while os.getppid() == parent:
            received = signal.sigtimedwait(STOP_SIGNALS, 1)
            if received and received.si_signo == signal.SIGTERM and received.si_pid == parent:
                break
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def accelerator():
    """The accelerator of this process where there is one, else the CPU; an entry script asks once."""
    if not torch.cuda.is_available():
        return torch.device('cpu')
    return torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count())


def _backend(device):
    """nccl on accelerators; gloo on CPUs, and where several processes share an accelerator, which nccl refuses."""
    beside = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    return 'nccl' if device.type == 'cuda' and beside <= torch.cuda.device_count() else 'gloo'


def start():
    """This process's device. Under torchrun it joins the others first (`_backend`).

    From here on SIGTERM and SIGUSR1 ask the run to stop (`stop_asked`) instead of ending it.
    """
    for name in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, _note)
    device = accelerator()
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    if 'TORCHELASTIC_RUN_ID' in os.environ and not dist.is_initialized():
        dist.init_process_group(_backend(device))
        _control.append(dist.new_group(backend='gloo', timeout=timedelta(days=1)))  # one may wait for another's shards
    return device


def finish():
    """Leave the group of processes, if there is one, where all of them are about to, nothing between them pending.

    Its threads end here: one that lets go of a tensor while Python ends would abort the process.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        _control.clear()


def rank():
    """The number of this process, 0 for the one that writes files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def world():
    """How many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait():
    """Wait for every other process."""
    if world() > 1:
        dist.barrier(group=_control[0])


def total_of(tensor):
    """The sum of a tensor over all processes, in place where there are several; returned."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def largest(value):
    """The largest whole number that any process gives; waits for all of them."""
    box = torch.tensor(value)  # on the host
    if world() > 1:
        dist.all_reduce(box, dist.ReduceOp.MAX, group=_control[0])
    return int(box)


def agreed(value):
    """The first process's value, for every process: a plain object."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box, src=0, group=_control[0])
    return box[0]


def first_alone(work):
    """work() in the first process; every process has what it returns. Where it fails, all leave and the first says
    why."""
    result, error = None, None
    if rank() == 0:
        try:
            result = work()
        except Exception as caught:
            error = caught
    result, failed = agreed((result, error is not None))
    if failed:
        finish()
    if error:
        raise error
    if failed:
        sys.exit(2)
    return result


def stop_asked():
    """Was this process asked to stop?"""
    return bool(_signals)


class Vote:
    """The largest number that any process gives, once a step: every process has it a step later, so that none waits."""

    def __init__(self):
        self.pending = None

    def __call__(self, wish):
        """The result of the step before; of this step where there is one process."""
        if world() == 1:
            return wish
        before = self.close()
        box = torch.tensor([wish])  # on the host: the accelerator is not waited for
        self.pending = dist.all_reduce(box, dist.ReduceOp.MAX, group=_control[0], async_op=True), box
        return before

    def close(self):
        """The result of the last step, 0 where there was none."""
        if not self.pending:
            return 0
        (work, box) = self.pending
        self.pending = None
        work.wait()
        return int(box)
