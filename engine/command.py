"""How a command ends: exit codes, what is a user's mistake and what a defect of the code."""

import errno
import os
import re
import sys
import traceback

import torch

from engine import processes
from wsol.errors import UserError

# What the machine or the user's rights refuse: one line. Any other OSError is a defect of the code.
MACHINE = {
    getattr(errno, name)
    for name in 'EACCES EADDRINUSE EDQUOT EIO EISDIR EMFILE ENAMETOOLONG ENOMEM ENOSPC ENOTDIR EPERM EROFS'.split()
}
STOPPED = 75  # exit code of a run that was asked to stop and kept its state: EX_TEMPFAIL, run it again
INTERRUPTED = 130  # of one that was interrupted at the keyboard, as shells have it
FULL = 'unable to (write to file|open shared memory|mmap|resize file)|shared memory|Bus error'  # /dev/shm, in errors


class Stopped(Exception):
    """The run was asked to stop; what it did so far is saved."""


def command(main):
    """Run an entry script's main(); what the user can mend ends in one line on standard error, exit code 2.

    Asked to stop: exit code 75; interrupted at the keyboard: 130. A defect of the code shows its traceback, exit code
    1.
    """
    processes.protect_workers()
    if hasattr(sys.stdout, 'reconfigure'):
        sys.stdout.reconfigure(errors='surrogateescape')  # a file name that is no UTF-8 is printed as its bytes
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Stopped as error:
        _end_with(str(error), STOPPED)
    except (UserError, OSError) as error:
        if not isinstance(error, UserError) and error.errno not in MACHINE:
            raise
        _end_with(f'error: {_one_line(error)}', 2)
    except RuntimeError as error:
        if not (line := _broken_from_outside(error)):
            raise
        _end_with(f'error: {line}', 2)


def _one_line(error):
    """The error's message; of one that a loader's process raised, the last line of what PyTorch made of it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith('Caught '):
        return re.sub(r'^[\w.]+: ', '', lines[-1])  # the exception's name
    return ' '.join(lines)


def _end_with(line, code):
    """One line on standard error, if there is something to say, then exit."""
    if os.environ.get('CALM_TRACEBACK'):
        traceback.print_exc()
    if line:
        print(f'{os.path.basename(sys.argv[0])}: {line}', file=sys.stderr, flush=True)
    sys.exit(code)


def _broken_from_outside(error):
    """A line on what broke from outside, by PyTorch's RuntimeError, or None."""
    first = str(error).split('\n')[0]
    if isinstance(error, torch.OutOfMemoryError):
        return 'out of memory on the accelerator: give a smaller --batch_size'
    if re.search(FULL, str(error), re.I):
        return (
            f'{_shared_memory()} is too small for what the processes pass on in it: give fewer --workers (with 0 it is '
            'not used), a smaller --batch_size, or more of it (docker run --shm-size=8g), and --resume to continue'
        )
    if first.startswith('DataLoader worker'):
        return (
            f'a data loading process was ended from outside ({first}): out of memory? give fewer --workers, '
            'and --resume to continue'
        )
    if isinstance(error, torch.distributed.DistError) or 'gloo' in first or 'Connection closed by peer' in first:
        return (
            f'another process of this run is gone ({first[:200]}): start all of them again, with --resume to continue'
        )
    return None


def _shared_memory():
    """The shared memory in words, with its size where it has one."""
    try:
        space = os.statvfs('/dev/shm')
    except OSError:
        return 'the shared memory'
    return f'the shared memory /dev/shm ({space.f_frsize * space.f_blocks / 2**20:.0f} MiB)'
