"""Work handed out to processes."""

import multiprocessing
import os
import time

import commands
import pytest

from engine import pool, processes


def square(n):
    return n * n


@pytest.mark.parametrize('workers', [0, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    with pool.in_processes(workers) as run:
        assert list(run(square, range(70))) == [n * n for n in range(70)]


def process_id(_):
    time.sleep(0.05)
    return os.getpid()


def _hold_a_pool(connection):
    """In a process of its own: hold a pool of two until the end, and answer with its process ids when asked."""
    processes.protect_workers()
    with pool.in_processes(2) as run:
        while connection.recv():
            connection.send({*run(process_id, range(8))})


def test_a_pool_leaves_stop_signals_to_its_parent_and_ends_with_it():
    ours, theirs = multiprocessing.Pipe()
    parent = multiprocessing.get_context('fork').Process(target=_hold_a_pool, args=(theirs,))
    parent.start()
    ours.send(True)
    workers = ours.recv()
    for worker in workers:
        for number in processes.STOP_SIGNALS:
            os.kill(worker, number)
    ours.send(True)
    assert ours.recv() == workers and len(workers) == 2
    parent.kill()
    while any(map(commands.is_alive, workers)):
        time.sleep(0.01)
