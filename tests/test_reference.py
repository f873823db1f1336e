"""The tables of maps and scores in the documentation are those of the registries."""

import os
import runpy
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from wsol.attribution import MAPS
from wsol.scoring.scores import METRICS

SCRIPTS = os.path.join(ROOT, 'scripts')
PAGE = os.path.join(ROOT, 'docs', 'evaluating.md')


with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, 'path', [SCRIPTS, *sys.path])
    reference = SimpleNamespace(**runpy.run_path(os.path.join(SCRIPTS, 'reference.py')))


def test_the_page_is_not_stale():
    with open(PAGE, encoding='utf-8') as file:
        page = file.read()
    assert reference.renewed(page) == page, 'run python scripts/reference.py'


def test_every_map_and_every_score_has_a_row_that_says_all():
    for table, names in ((reference.maps_table(), MAPS), (reference.scores_table(), METRICS)):
        rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines()[2:]]
        assert [row[0] for row in rows] == [f'`{name}`' for name in names]
        assert all(len(row) == 5 and all(row) for row in rows)


def test_a_new_row_makes_the_page_stale(monkeypatch):
    monkeypatch.setitem(METRICS, 'new', METRICS['deletion'])
    assert '| `new`' in reference.section()
    assert reference.renewed(f'a{reference.START}old{reference.END}b') == f'a{reference.section()}b'
