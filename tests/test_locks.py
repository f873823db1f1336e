"""One run at a time makes a result: locks between processes, after a kill, and where a file system has none."""

import errno
import fcntl
import os
import signal

import pytest

from engine.resume import locks
from wsol.errors import InUse, UserError


@pytest.fixture
def elsewhere():
    """A function (work) -> (number of a process that has done work() and lives on, what it returned, as text)."""
    alive = []

    def run(work):
        read, write = os.pipe()
        if not (pid := os.fork()):
            try:
                os.write(write, str(work()).encode())
            except UserError as error:
                os.write(write, str(error).encode())
            signal.pause()
        alive.append(pid)
        os.close(write)
        with os.fdopen(read, 'rb', buffering=0) as pipe:
            return pid, pipe.read(10_000).decode()

    yield run
    for pid in alive:
        end(pid)


def end(pid):
    """kill -9."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def taken(folder, name='accuracy.json'):
    lock = locks.Lock(folder, name)
    lock.take()
    return lock


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path, elsewhere):
    pid, said = elsewhere(lambda: taken(tmp_path))
    path = tmp_path / 'accuracy.json.lock'
    before = path.read_bytes()
    with pytest.raises(InUse, match=f'accuracy.json is being made by another run .process {pid} on .*remove {path}'):
        taken(tmp_path)
    assert path.read_bytes() == before  # nothing of the first is touched
    taken(tmp_path, 'wsol_vanilla.json').release()  # another result
    end(pid)
    assert path.exists()  # but it locks nothing
    lock = taken(tmp_path)
    assert f'process {os.getpid()} on '.encode() in os.pread(lock.file, 100, 0)
    assert 'being made by another run' in elsewhere(lambda: taken(tmp_path))[1]
    lock.release()
    assert os.listdir(tmp_path) == []


def test_the_processes_that_a_run_starts_do_not_hold_its_lock(tmp_path, elsewhere):
    lock = taken(tmp_path)
    elsewhere(lambda: 'it lives on, with all that is open')
    lock.release()
    assert 'Lock' in elsewhere(lambda: taken(tmp_path))[1]


def test_a_file_that_its_holder_has_just_removed_is_not_taken_for_the_lock(tmp_path, monkeypatch, elsewhere):
    calls = []
    lockf = fcntl.lockf

    def late(file, how):
        calls.append(file)
        if len(calls) == 1:
            os.unlink(tmp_path / 'accuracy.json.lock')  # between the two steps of taking it
        lockf(file, how)

    monkeypatch.setattr(fcntl, 'lockf', late)
    lock = taken(tmp_path)
    assert len(calls) == 2 and locks.is_at(lock.file, lock.path)
    assert 'being made by another run' in elsewhere(lambda: taken(tmp_path))[1]
    lock.release()


def refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_from_work(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, 'lockf', refusing(number))
    taken(tmp_path).release()
    assert os.listdir(tmp_path) == []


def test_any_other_trouble_with_the_lock_shows_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, 'lockf', refusing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        taken(tmp_path)


@pytest.mark.parametrize('number', [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_the_runs_matter(tmp_path, monkeypatch, number):
    """A result that is complete is told from a read-only disk too."""
    monkeypatch.setattr(os, 'open', refusing(number))
    lock = taken(tmp_path)
    assert lock.file is None
    lock.release()


def test_folders_made_for_a_lock_go_with_it_unless_they_hold_something(tmp_path):
    taken(tmp_path / 'a' / 'b').release()
    assert os.listdir(tmp_path) == []
    lock = taken(tmp_path / 'a' / 'b')
    (tmp_path / 'a' / 'log').touch()
    lock.release()
    assert os.listdir(tmp_path / 'a') == ['log']
