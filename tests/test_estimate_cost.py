"""The arithmetic of scripts/estimate_cost.py, by hand."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, os.path.join(ROOT, 'scripts'))
import estimate_cost as estimate

RATES = estimate.Rates(
    train_rate=100, forward_rate=400, load_rate=50, bandwidth=10, parameters=25, epochs=40, batch_size=64
)


def test_the_networks_are_those_of_the_scripts():
    found = {table: len(estimate.networks(table)) for table in estimate.TABLES}
    assert found == {'classification': 9, 'cue_localization': 3, 'remove_and_classify': 9, 'wsol': 15}
    assert ('CUB', 'CAM_CUB', ['input_grad', 'integrated_grad', 'smooth_grad', 'var_grad', 'vanilla']) in (
        estimate.networks('cue_localization')
    )


def test_passes_by_hand():
    """A backward pass is two forward passes; on CUB an image has its class and 4.28 partners."""
    assert [estimate.gradient_passes(name) for name in ('jointll', 'input_grad', 'integrated_grad', 'var_grad')] == [
        0, 1, 51, 50,
    ]  # fmt: skip
    cue = estimate.evaluation_passes('cue_localization', 'CUB', ['input_grad', 'vanilla', 'jointll'])
    assert cue == pytest.approx(2579 + 2579 + 2 * (2579 + 11039))
    erase = estimate.evaluation_passes('remove_and_classify', 'CUB', ['vanilla', 'smooth_grad'])
    assert erase == 5794 * (1 + 5 + 5 + 5 + 50 * 3)
    assert estimate.evaluation_passes('wsol', 'OpenImages', ['jointll', 'saliency']) == 10000
    assert estimate.evaluation_passes('classification', 'CUB', []) == 5794


def test_a_run_by_hand():
    """CUB has 5994 and 1000 images, 94 steps an epoch; 100 MB of gradients go by twice, nearly."""
    alone = 40 * (5994 / 100 + 1000 / 400)
    assert estimate.run_seconds('CUB', RATES, 1) == pytest.approx(alone)
    assert estimate.run_seconds('CUB', RATES, 4) == pytest.approx(alone / 4 + 40 * 94 * 2 * 0.75 * 0.01)
    assert estimate.limit(RATES) == pytest.approx(0.64 / 0.02)


def test_a_table_by_hand():
    one = 40 * (5994 / 100 + 1000 / 400)
    cost = estimate.table_cost('cue_localization', RATES, [1, 2, 3, 6, 12])
    classes = 1 + 11039 / 2579
    passes = 2579 * (1 + (1 + 51 + 50 + 50) * (1 + 2 * classes)) + 2 * 2579  # CAM's five maps, CALM-ML's and -EM's one
    evaluated = passes / 400
    assert cost.gpu_seconds == pytest.approx(3 * one + evaluated)
    four = estimate.run_seconds('CUB', RATES, 4)
    expected = [
        3 * one + evaluated,
        1.5 * one + evaluated / 2,
        one + evaluated / 3,
        estimate.run_seconds('CUB', RATES, 2) + evaluated / 6,
        four + evaluated / 12,
    ]
    assert [hours * 3600 for hours in cost.hours] == pytest.approx(expected)
    assert cost.cores == [2, 4, 6, 12, 24] and cost.reading == pytest.approx([9.7 * n for n in (1, 2, 3, 6, 12)])
    assert cost.disk == pytest.approx(12788 * 97e-6 + 3 * 3 * 2 * 0.1)


def test_the_command_prints_a_row_a_table():
    script = [sys.executable, os.path.join(ROOT, 'scripts', 'estimate_cost.py')]
    rates = ['--train_rate=100', '--forward_rate=400', '--load_rate=50', '--bandwidth=10', '--parameters=25']
    done = subprocess.run([*script, *rates], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cost = estimate.table_cost('cue_localization', RATES, [1, 8, 64])
    hours = ' | '.join(f'{value:.1f}' for value in (cost.gpu_seconds / 3600, *cost.hours))
    assert f'| cue_localization | {hours} | {cost.disk:.0f} |' in done.stdout
    assert '8 GPUs in training: 16 cores load' in done.stdout and 'at about 32 GPUs' in done.stdout
    done = subprocess.run([*script, *rates[:2], '--load_rate=0'], capture_output=True, text=True)
    assert done.returncode == 2 and 'numbers over 0' in done.stderr
