"""torchrun with the message and exit code of the single-process command, without torchrun's traceback.

    python scripts/torchrun.py --nproc_per_node=4 main.py --resume=True (with the same flags)

Takes torchrun's arguments. Forwards SIGUSR1 to the processes too. Exit codes: 75 stopped on request, run it again with
--resume; 130 interrupted at the keyboard; 2 user error; 1 a bug, or a process killed from outside.
"""

import signal
import sys

import checkout  # noqa: F401
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from engine.command import INTERRUPTED, STOPPED

SIGNALS = '--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1'


def code_of(failures):
    """Exit code of a run from those of its failed processes, {rank: code}.

    The lowest positive code counts: processes that stop because of another one have higher codes, and torchrun
    terminates the rest with SIGTERM.
    """
    positive = [code for code in failures.values() if code > 0]
    ended = {rank: signal.Signals(-code).name for rank, code in failures.items() if code < 0}
    outside = {rank: name for rank, name in ended.items() if name != 'SIGTERM'} or (ended if not positive else {})
    if not outside:
        return min(positive)
    named = ', '.join(f'{rank} by {name}' for rank, name in outside.items())
    why = 'is the shared memory /dev/shm full?' if 'SIGBUS' in outside.values() else 'out of memory?'
    print(
        f'torchrun.py: error: a process was killed from outside (number {named}): {why} Restart all of '
        'them, with --resume to continue',
        file=sys.stderr,
    )
    return 1


def launch(arguments):
    """Run torchrun and return the exit code."""
    try:
        main([SIGNALS, *arguments])
    except ChildFailedError as error:
        return code_of({rank: failure.exitcode for rank, failure in error.failures.items()})
    except SignalException as error:  # the processes have had time to save their state
        return INTERRUPTED if error.sigval == signal.SIGINT else STOPPED
    return 0


if __name__ == '__main__':
    sys.exit(launch(sys.argv[1:]))
