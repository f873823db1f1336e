"""Work handed out to processes."""

import pytest

from engine import pool


def square(n):
    return n * n


@pytest.mark.parametrize('workers', [0, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    with pool.in_processes(workers) as run:
        assert list(run(square, range(70))) == [n * n for n in range(70)]
