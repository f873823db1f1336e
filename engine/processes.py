"""The processes of a run: joining those of torchrun, stop signals, and communication between processes."""

import functools
import os
import signal
import sys
import threading
from datetime import timedelta

import torch
import torch.distributed as dist

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_signals = []  # received since `start`
_control = []  # the gloo group for control messages; gradients use the default group


def _note(signal_number, frame):
    _signals.append(signal_number)


@functools.cache
def protect_workers():
    """Make processes that are forked from now on (loader workers, pools) leave stop signals to this one.

    `timeout`, torchrun and SLURM may signal every process of a run, but only the main process can save its state.
    """
    os.register_at_fork(after_in_child=_follow_parent)


def _follow_parent():
    """In a forked process: ignore STOP_SIGNALS except SIGTERM from the parent; exit when the parent has ended.

    Without a thread for that (ulimit -u) it exits at once: its parent could not end it, and would wait for it forever.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parent = os.getppid()

    def wait():
        while os.getppid() == parent:
            received = signal.sigtimedwait(STOP_SIGNALS, 1)
            if received and received.si_signo == signal.SIGTERM and received.si_pid == parent:
                break
        os._exit(0)

    try:
        threading.Thread(target=wait, daemon=True).start()
    except RuntimeError:
        os._exit(1)


def accelerator():
    """The accelerator of this process if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device('cpu')
    return torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count())


def _backend(device):
    """nccl on accelerators; gloo on CPUs, and if processes share an accelerator, which nccl refuses."""
    local_world = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    return 'nccl' if device.type == 'cuda' and local_world <= torch.cuda.device_count() else 'gloo'


def start():
    """Join the other processes of torchrun, if any, and return this process's device.

    From now on SIGTERM and SIGUSR1 request a stop (`stop_asked`) instead of ending the process.
    """
    for name in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, _note)
    device = accelerator()
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    if 'TORCHELASTIC_RUN_ID' in os.environ and not dist.is_initialized():
        dist.init_process_group(_backend(device))
        _control.append(dist.new_group(backend='gloo', timeout=timedelta(days=1)))  # shards may take long
    return device


@functools.cache
def tell_once(line):
    """Print a line on standard error in rank 0, once even if several tasks report the same."""
    if rank() == 0:
        print(line, file=sys.stderr, flush=True)


def finish():
    """Leave the process group, if there is one; all processes call this with no communication pending.

    It ends the group's threads: one that frees a tensor while Python exits would abort the process.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        _control.clear()


def rank():
    """The rank of this process; rank 0 writes files and prints."""
    return dist.get_rank() if dist.is_initialized() else 0


def world():
    """The number of processes that share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait():
    """Wait for all other processes."""
    if world() > 1:
        dist.barrier(group=_control[0])


def total_of(tensor):
    """Sum a tensor over all processes, in place, and return it."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def largest(value):
    """The maximum of an int over all processes; waits for them."""
    box = torch.tensor(value)  # on the host
    if world() > 1:
        dist.all_reduce(box, dist.ReduceOp.MAX, group=_control[0])
    return int(box)


def agreed(value):
    """The value of rank 0, a picklable object, in every process."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box, src=0, group=_control[0])
    return box[0]


def first_alone(work):
    """Call work() in rank 0 and return its result in every process; if it raises, all exit and rank 0 reports it."""
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
    """Has this process received a stop signal?"""
    return bool(_signals)


class Vote:
    """The maximum of an int over all processes at each step, delivered a step later so that no process waits."""

    def __init__(self):
        self.pending = None

    def __call__(self, value):
        """The result of the previous step; with one process, of this step."""
        if world() == 1:
            return value
        before = self.close()
        box = torch.tensor([value])  # on the host, to not wait for the accelerator
        self.pending = dist.all_reduce(box, dist.ReduceOp.MAX, group=_control[0], async_op=True), box
        return before

    def close(self):
        """The result of the last step, 0 if there is none."""
        if not self.pending:
            return 0
        (work, box) = self.pending
        self.pending = None
        work.wait()
        return int(box)
