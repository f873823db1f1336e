"""How a command ends: exit codes; one line for a user's mistake, a traceback for a bug."""

import errno
import os
import re
import select
import sys
import traceback
import warnings

import torch

from engine import before_torch, processes
from wsol.errors import UserError

# OSErrors caused by the machine or by permissions end in one line; any other OSError is a bug.
MACHINE = {
    getattr(errno, name)
    for name in (
        'EACCES EADDRINUSE EAGAIN EDQUOT EEXIST EFBIG EIO EISDIR ELOOP EMFILE ENAMETOOLONG ENFILE ENOMEM ENOSPC '
        'ENOTDIR EPERM EROFS ESTALE'
    ).split()
}
STOPPED = 75  # exit code of a run that stopped on request with its state saved (EX_TEMPFAIL)
PIPE = 141  # exit code if nobody reads standard output any longer, as in shells
INTERRUPTED = 130  # exit code after Ctrl-C, as in shells
FULL = 'unable to (write to file|open shared memory|mmap|resize file)|shared memory|Bus error'  # a full /dev/shm
MANY = (
    'the system allows no more processes or threads: give fewer --workers, set OMP_NUM_THREADS=1, or allow more '
    '(ulimit -u, a limit of the container); --resume continues'
)


class Stopped(Exception):
    """The run stopped on request; its state is saved."""


def command(main):
    """Run an entry script's main() and exit with its code.

    2 and one line on standard error: an error that the user can fix. 75: stopped on request. 130: Ctrl-C. 1 and a
    traceback: a bug.
    """
    processes.protect_workers()
    before_torch.print_all(sys.stdout)
    warnings.filterwarnings('ignore', 'This DataLoader will create')  # --workers above the number of cores
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Stopped as error:
        _end_with(str(error), STOPPED)
    except (UserError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _unread(sys.stdout):
            _end_with('standard output was closed, as by `head`: the work is not finished', PIPE)
        if not isinstance(error, UserError) and error.errno not in MACHINE:
            raise
        many = getattr(error, 'errno', None) == errno.EAGAIN
        _end_with(f'error: {MANY if many else _one_line(error)}', 2)
    except UnicodeEncodeError as error:
        if sys.getfilesystemencoding() == 'utf-8':
            raise
        _end_with(
            f'error: {error.object[:200]!a} cannot be a file name in the encoding of this locale, {error.encoding}: '
            'set LC_ALL=C.UTF-8, or PYTHONUTF8=1',
            2,
        )
    except RuntimeError as error:
        if not (line := _external_cause(error)):
            raise
        _end_with(f'error: {line}', 2)


def _one_line(error):
    """The error's message; if PyTorch re-raised it from a worker with its traceback, the last line of that."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith('Caught '):
        return re.sub(r'^[\w.]+: ', '', lines[-1])  # the exception's name
    return ' '.join(lines)


def _end_with(line, code):
    """Print the line on standard error, unless it is empty, and exit."""
    if os.environ.get('CALM_TRACEBACK'):
        traceback.print_exc()
    else:
        sys.unraisablehook = lambda _: None  # a half-made DataLoader fails again when it is deleted
    if line:
        print(f'{os.path.basename(sys.argv[0])}: {line}', file=sys.stderr, flush=True)
    if not _writable(sys.stdout):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it exits
    sys.exit(code)


def _unread(stream):
    """Has the program that read a stream ended? Asks the pipe: with python -u there is nothing to flush."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _writable(stream):
    """Can the rest of a stream be written? False if its disk is full, or if the program that read it has ended."""
    try:
        if stream is not None:  # closed from the start, with >&-
            stream.flush()
    except OSError:
        return False
    return True


def _external_cause(error):
    """The message for a RuntimeError of PyTorch with an external cause (memory, a killed process); None for a bug."""
    first = str(error).split('\n')[0]
    if isinstance(error, torch.OutOfMemoryError):
        return 'out of memory on the accelerator: give a smaller --batch_size'
    if re.search(FULL, str(error), re.I):
        return (
            f"{_shared_memory()} is too small for the processes' data: give fewer --workers (0 needs none) "
            'or a smaller --batch_size, or enlarge it (docker run --shm-size=8g); --resume continues'
        )
    if "can't start new thread" in str(error):
        return MANY
    if 'Too many open files' in str(error):
        return 'too many open files: give fewer --workers, or allow more (ulimit -n 4096); --resume continues'
    if first.startswith('DataLoader worker'):
        return f'a data loading process was killed ({first}): out of memory? give fewer --workers; --resume continues'
    if isinstance(error, torch.distributed.DistError) or 'gloo' in first or 'Connection closed by peer' in first:
        return f'another process of this run has ended ({first[:200]}): restart all of them with --resume to continue'
    return None


def _shared_memory():
    """The name of the shared memory, with its size if it is known."""
    try:
        space = os.statvfs('/dev/shm')
    except OSError:
        return 'the shared memory'
    return f'the shared memory /dev/shm ({space.f_frsize * space.f_blocks / 2**20:.0f} MiB)'
