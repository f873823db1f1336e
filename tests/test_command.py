"""How a command ends: one line and an exit code for what the user can mend, a traceback for a defect of the code."""

import errno
import os
import sys
import warnings

import pytest
import torch

from engine.command import Stopped, command
from wsol.errors import UserError


@pytest.fixture(autouse=True)
def hook(monkeypatch):
    """What `command` changes in this process is restored."""
    monkeypatch.setattr(sys, 'unraisablehook', sys.unraisablehook)


@pytest.mark.parametrize(
    'error, code, said',
    [
        (KeyboardInterrupt(), 130, ''),
        (Stopped('stopped, run it again'), 75, 'stopped, run it again'),
        (UserError('--x is odd'), 2, 'error: --x is odd'),
        (
            UserError('Caught UserError in worker 0.\n  File "x"\nwsol.errors.UserError: a is gone'),
            2,
            'error: a is gone',
        ),
        (PermissionError(errno.EACCES, 'no right', 'a.txt'), 2, "no right: 'a.txt'"),
        (OSError(errno.ENOSPC, 'full'), 2, 'full'),
        (torch.OutOfMemoryError('CUDA'), 2, 'give a smaller --batch_size'),
        (RuntimeError('DataLoader worker (pid 3) is killed by signal: Killed.'), 2, 'give fewer --workers'),
        (
            RuntimeError(
                'Caught RuntimeError in DataLoader worker process 0.\n  File "x"\nRuntimeError: unable to write '
                'to file </torch_1_2_0>: No space left on device (28)'
            ),
            2,
            'shared memory',
        ),
        (
            RuntimeError('DataLoader worker (pid 3) is killed by signal: Bus error. It is possible that'),
            2,
            '--shm-size',
        ),
        (BlockingIOError(errno.EAGAIN, 'Resource temporarily unavailable'), 2, 'ulimit -u'),
        (RuntimeError("can't start new thread"), 2, 'the system allows no more processes or threads: give fewer'),
        (RuntimeError('Too many open files. Communication with the workers is no longer'), 2, 'ulimit -n'),
        (RuntimeError('[gloo] Connection closed by peer'), 2, 'another process of this run has ended'),
    ],
)
def test_what_the_user_can_mend_ends_in_one_line(error, code, said, capsys, monkeypatch):
    monkeypatch.delenv('CALM_TRACEBACK', raising=False)

    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        command(main)
    err = capsys.readouterr().err
    assert stop.value.code == code and said in err and len(err.splitlines()) == (1 if said else 0)
    assert 'out of memory' not in err or 'shared' not in err  # a full /dev/shm is not called that


@pytest.mark.parametrize('kind, code', [('pipe', 141), ('/dev/full', 2)])
def test_an_output_that_takes_nothing_more_ends_in_one_line(kind, code, capsys, monkeypatch):
    """`| head`, or a full disk; Python's own flush at the exit must not fail again."""
    monkeypatch.delenv('CALM_TRACEBACK', raising=False)
    if kind == 'pipe':
        reader, writer = os.pipe()
        os.close(reader)
    stream = open(writer if kind == 'pipe' else kind, 'w')
    monkeypatch.setattr(sys, 'stdout', stream)
    with pytest.raises(SystemExit) as stop:
        command(lambda: print('a line', flush=True))
    stream.close()  # what Python does last
    said = 'standard output was closed, as by `head`: the work is not finished' if kind == 'pipe' else 'No space left'
    err = capsys.readouterr().err
    assert stop.value.code == code and said in err and err.count('\n') == 1, err


def test_a_broken_pipe_of_another_kind_is_a_defect(tmp_path, monkeypatch):
    def main():
        raise BrokenPipeError(errno.EPIPE, 'a loader')

    monkeypatch.setattr(sys, 'stdout', open(tmp_path / 'out', 'w'))

    with pytest.raises(BrokenPipeError):
        command(main)


def test_more_workers_than_cores_are_no_warning(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0})

    def main():
        torch.utils.data.DataLoader([1], num_workers=3)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        main()
        assert len(seen) == 1
        command(main)
    assert len(seen) == 1


def test_a_name_that_the_locale_cannot_spell_ends_in_one_line(capsys, monkeypatch):
    def main():
        'pho\xfc'.encode('ascii')

    with pytest.raises(UnicodeEncodeError):  # a defect where every name can be spelt
        command(main)
    monkeypatch.delenv('CALM_TRACEBACK', raising=False)
    monkeypatch.setattr(sys, 'getfilesystemencoding', lambda: 'ascii')
    with pytest.raises(SystemExit, match='2'):
        command(main)
    assert "'pho\\xfc' cannot be a file name in the encoding of this locale, ascii: set" in capsys.readouterr().err


OURS = [
    ValueError('ours'),
    RuntimeError('shapes'),
    RuntimeError('Caught RuntimeError in DataLoader worker process 0.\n  File "x"\nRuntimeError: shapes'),
    FileNotFoundError(errno.ENOENT, 'x'),
]


@pytest.mark.parametrize('error', OURS)
def test_a_defect_of_the_code_is_shown(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        command(main)
