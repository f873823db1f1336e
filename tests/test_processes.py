"""What processes tell each other, the others' words put in by hand; the signals that ask for a stop."""

import os
import signal
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from engine import processes
from engine.command import Stopped
from engine.resume import resuming


@pytest.fixture
def restored(monkeypatch):
    """The signals' handlers come back; nobody asked for a stop."""
    monkeypatch.setattr(processes, '_signals', [])
    names = signal.SIGTERM, signal.SIGUSR1
    before = [signal.signal(name, signal.SIG_IGN) for name in names]
    yield
    for name, handler in zip(names, before):
        signal.signal(name, handler)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1'])
def test_a_signal_asks_for_a_stop(restored, monkeypatch, name):
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    processes.start()
    assert not processes.stop_asked() and not dist.is_initialized()
    os.kill(os.getpid(), getattr(signal, name))
    assert processes.stop_asked()


def test_a_fork_that_may_have_no_thread_ends_itself(monkeypatch):
    """With its stop signals blocked, its parent could not end it."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(processes.threading.Thread, 'start', refuse)
    if not (child := os.fork()):
        try:
            processes._follow_parent()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_alone_there_is_nobody_to_ask():
    assert (processes.rank(), processes.world()) == (0, 1)
    box = torch.tensor([1.0, 2.0])
    assert processes.total_of(box) is box and processes.largest(7) == 7 and processes.agreed({'a': [1]}) == {'a': [1]}
    processes.wait()
    processes.finish()
    vote = processes.Vote()
    assert [vote(wish) for wish in (0, 2, 1)] == [0, 2, 1] and vote.close() == 0


def test_the_accelerator_is_that_of_the_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for rank, number in (('0', 0), ('1', 1), ('5', 1)):
        monkeypatch.setenv('LOCAL_RANK', rank)
        assert processes.accelerator() == torch.device('cuda', number)
    monkeypatch.delenv('LOCAL_RANK')
    assert processes.accelerator() == torch.device('cuda', 0)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert processes.accelerator() == torch.device('cpu')


@pytest.fixture
def other(monkeypatch):
    """Another process, whose words `other.says` are taken one after the other; `other.groups` notes by which group."""
    noted = SimpleNamespace(says=[], groups=[])

    def merge(box, op, group):
        noted.groups.append(group)
        word = torch.as_tensor(noted.says.pop(0))
        box.copy_({dist.ReduceOp.MAX: torch.maximum, dist.ReduceOp.SUM: torch.add}[op](box, word))

    def all_reduce(box, op=dist.ReduceOp.SUM, group=None, async_op=False):
        if not async_op:
            return merge(box, op, group)
        return SimpleNamespace(wait=lambda: merge(box, op, group))

    monkeypatch.setattr(processes, 'world', lambda: 2)
    monkeypatch.setattr(processes, '_control', ['words'])
    monkeypatch.setattr(dist, 'all_reduce', all_reduce)
    monkeypatch.setattr(dist, 'barrier', lambda group: noted.groups.append(group))
    return noted


def test_a_vote_is_the_largest_wish_of_all_a_step_later(other):
    vote = processes.Vote()
    other.says = [2, 0, 1]
    assert [vote(wish) for wish in (0, 1, 1)] == [0, 2, 1]
    assert vote.close() == 1 and vote.close() == 0  # of the last step, once
    assert other.groups == ['words'] * 3 and other.says == []


def test_words_go_by_the_hosts_and_sums_by_the_accelerators(other):
    other.says = [9, 3, torch.tensor([10.0, 20.0])]
    assert processes.largest(4) == 9 and processes.largest(8) == 8
    assert processes.total_of(torch.tensor([1.0, 2.0])).tolist() == [11, 22]
    processes.wait()
    assert other.groups == ['words', 'words', None, 'words']


def test_the_first_process_is_right(other, monkeypatch):
    def broadcast(box, src, group):
        assert (src, group) == (0, 'words')
        box[0] = 'the first one says so'

    monkeypatch.setattr(dist, 'broadcast_object_list', broadcast)
    assert processes.agreed('mine') == 'the first one says so'


def test_all_leave_the_group_before_they_end(monkeypatch):
    """Threads of the group that outlive it could abort a process that ends: a failure of the first, a stop of all."""
    left = []
    monkeypatch.setattr(processes, 'finish', lambda: left.append(processes.rank()))
    assert processes.first_alone(lambda: 'done') == 'done' and not left
    with pytest.raises(ZeroDivisionError):
        processes.first_alone(lambda: 1 / 0)
    monkeypatch.setattr(processes, 'rank', lambda: 1)
    monkeypatch.setattr(processes, 'agreed', lambda value: (None, True))  # the first one failed
    with pytest.raises(SystemExit, match='2'):
        processes.first_alone(lambda: 'never called')
    assert left == [0, 1]


def test_a_stop_is_told_by_the_first_process_once_all_have_left(monkeypatch, tmp_path):
    left = []
    monkeypatch.setattr(processes, 'finish', lambda: left.append(processes.rank()))
    with pytest.raises(Stopped, match='stopped on request'):
        resuming.stop_marked(str(tmp_path))
    monkeypatch.setattr(processes, 'rank', lambda: 0 if len(left) == 2 else 1)  # without a group everyone is the first
    with pytest.raises(Stopped, match='^$'):
        resuming.stop_marked(str(tmp_path))
    assert left == [0, 1]
