"""Intervals and comparisons: they hold the truth as often as they say, and the p-values are those of exact tests."""

import itertools
import json
import os
import runpy
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

from engine import arrays
from report import comparison, intervals, results, samples, tables
from report.page import evaluations, overview
from report.samples import Score
from wsol.errors import UserError
from wsol.scoring import boxes, erasing, means, pixels
from wsol.scoring.means import Highest, PixelAveragePrecision


def score(columns, figure=means.plain, name='x', value=None):
    return Score(name, value, np.asarray(columns, float), figure)


def normal(rng, n):
    """Of mean 3."""
    return rng.normal(3, 2, (n, 1)), means.plain, 3


def bernoulli(rng, n):
    """Right in .3 of the images."""
    return rng.random((n, 1)) < 0.3, means.percent, 30


def ratio(rng, n):
    """R_k: .4 of the images right with the highest pixels erased; of those, .8 right with random ones, of others .5."""
    top = rng.random(n) < 0.4
    return np.stack([top, rng.random(n) < np.where(top, 0.8, 0.5)], axis=1), means.ratio, 0.4 / 0.62


@pytest.mark.parametrize('kind', [normal, bernoulli, ratio])
@pytest.mark.slow
def test_a_95_percent_interval_holds_the_truth_in_92_to_98_percent_of_500_trials(kind):
    rng = np.random.default_rng(5)
    held = 0
    for trial in range(500):
        columns, figure, truth = kind(rng, 80)
        [(low, high)] = intervals.intervals([score(columns, figure)], resamples=250, seed=trial)
        held += low <= truth <= high
    assert 0.92 <= held / 500 <= 0.98


@pytest.mark.slow
def test_the_interval_of_a_difference_holds_it_as_often():
    rng = np.random.default_rng(6)
    held = 0
    for trial in range(250):
        common = rng.normal(0, 3, 60)  # the images' own difficulty, which pairing takes out
        a, b = (score((common + rng.normal(shift, 1, 60))[:, None]) for shift in (0, 0.5))
        [found] = intervals.compare([a], [b], resamples=250, seed=trial)
        low, high = found.interval
        held += low <= 0.5 <= high
        assert high - low < 1.2  # unpaired it would be over 2
    assert 0.92 <= held / 250 <= 0.98


@pytest.mark.slow
def test_p_values_are_even_where_nothing_differs():
    """Below .05 in one of twenty trials, below .5 in half of them."""
    rng = np.random.default_rng(7)
    found = [
        intervals.compare([score(a)], [score(b)], resamples=200, seed=trial)[0].p
        for trial in range(300)
        for a, b in [rng.normal(0, 1, (2, 25, 1))]
    ]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.09 and 0.42 <= np.mean(np.array(found) <= 0.5) <= 0.58


def test_the_p_value_of_an_accuracy_is_mcnemars_exact_one():
    """Of the images on which the two differ, some are won by B: the sign test, every exchange counted."""
    rng = np.random.default_rng(8)
    for won, lost in ((8, 2), (6, 6), (9, 0), (3, 5), (1, 0)):
        right = rng.random(200) < 0.5
        other = right.copy()
        other[np.flatnonzero(~right)[:won]] = True
        other[np.flatnonzero(right)[:lost]] = False
        [found] = intervals.compare(
            [score(right[:, None], means.percent)], [score(other[:, None], means.percent)], resamples=5000
        )
        assert found.p == pytest.approx(min(1, stats.binomtest(won, won + lost).pvalue), rel=1e-9)
        assert found.difference == pytest.approx((won - lost) / 2) and found.a == 100 * right.mean()


def exact_p(first, second, figure):
    """The two-sided p-value of figure(second) - figure(first): all exchanges of rows between the two, one by one."""
    found = []
    for exchanged in itertools.product([False, True], repeat=len(first)):
        swap = np.array(exchanged)[:, None]
        one, other = np.where(swap, second, first), np.where(swap, first, second)
        found.append(round(float(figure(other.mean(axis=0)) - figure(one.mean(axis=0))), 9))
    found = np.array(found)
    observed = found[0]  # nothing exchanged
    return min(1, 2 * min((found >= observed).mean(), (found <= observed).mean()))


def some_alike(figure, columns, n=8, alike=5, seed=0):
    """Two runs' scores [n, columns], whole numbers, of which `alike` units are the same in both."""
    first, second = np.random.default_rng(seed).integers(0, 4, (2, n, columns)).astype(float)
    second[:alike] = first[:alike]
    return score(first, figure), score(second, figure)


@pytest.mark.parametrize('figure, columns', [
    (means.ratio, 2), (means.mean_ratio, 4), (Highest([0, 3]), 6), (PixelAveragePrecision(), 8), (means.plain, 1)
])  # fmt: skip
@pytest.mark.slow
def test_the_p_value_is_that_of_all_exchanges_where_some_units_are_alike(figure, columns):
    """Of figures that are no plain means, too: what the alike units hold stays in both runs."""
    expected = []
    for seed in range(6):
        for alike in (0, 3, 5):
            a, b = some_alike(figure, columns, alike=alike, seed=seed)
            expected.append(exact_p(a.columns, b.columns, figure))
            [found] = intervals.compare([a], [b], resamples=400)
            assert found.p == pytest.approx(expected[-1], rel=1e-9), (seed, alike)
    assert len({*np.round(expected, 6)}) > 5


def test_what_rounding_parts_is_a_tie():
    """The gains add up to nothing, and so do those of many exchanges, but for the last digit: p is 1."""
    for seed in range(10):
        gains = np.random.default_rng(seed).permutation([0.1, 0.2, -0.3, 0.1, 0.2, -0.3, 0.7, -0.7])
        [found] = intervals.compare([score(np.zeros((8, 1)))], [score(gains[:, None])], resamples=400)
        assert found.p == 1 and found.difference == pytest.approx(0, abs=1e-12)


def test_the_p_value_of_many_images_is_near_the_exact_one():
    rng = np.random.default_rng(9)
    a, b = rng.normal(0, 1, (2, 300))
    b += 0.2
    [found] = intervals.compare([score(a[:, None])], [score(b[:, None])], resamples=4000)
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)
    shift = stats.bootstrap((b - a,), np.mean, n_resamples=2000, method='percentile', rng=1).confidence_interval
    assert found.interval == pytest.approx(tuple(shift), abs=0.03)


def test_a_run_with_itself_shows_nothing():
    rng = np.random.default_rng(1)
    several = [
        score(rng.random((40, 1)), means.percent),
        score(rng.random((40, 2)), means.ratio),
        score(rng.random((40, 6)) < 0.5, Highest([0, 3])),
        score(rng.integers(0, 9, (40, 10)) * ([1, 1, 1, 1, 0] * 2), PixelAveragePrecision()),
    ]
    for found in intervals.compare(several, several, resamples=99):
        assert (found.difference, found.interval, found.p, found.a) == (0, (0, 0), 1, found.b)


def test_what_is_not_defined_has_no_interval(recwarn):
    nothing = score(np.zeros((9, 2)), means.ratio)
    rare = score(np.eye(9)[:, [0, 1]], means.ratio)  # one image of nine is right: often none is drawn
    all_right = score(np.ones((9, 1)), means.percent)
    assert intervals.intervals([nothing, rare, all_right], resamples=200) == [None, None, (100, 100)]
    assert intervals.intervals([score([[3.0]])]) == [None]  # one image
    [one, two] = intervals.compare([nothing, all_right], [rare, all_right], resamples=200)
    assert np.isnan(one.a) and np.isnan(one.difference) and one.interval is None and np.isnan(one.p)
    assert two.interval == (0, 0) and not recwarn.list


def test_units_that_depend_on_each_other_tell_neither_interval_nor_p():
    """The running values of cue localization: a difference, and no word on how sure it is."""
    a, b = np.random.default_rng(3).random((2, 9, 1))
    [one] = intervals.compare([score(a)._replace(resampled=False)], [score(b)._replace(resampled=False)], resamples=99)
    assert one.difference == pytest.approx(b.mean() - a.mean()) and one.interval is None and np.isnan(one.p)
    assert intervals.intervals([score(a)._replace(resampled=False)]) == [None]


def test_the_same_seed_gives_the_same_interval():
    one = score(np.random.default_rng(2).random((50, 1)))
    assert intervals.intervals([one]) == intervals.intervals([one]) != intervals.intervals([one], seed=1)


def test_figures_are_those_of_the_scores():
    """The figures of means against the functions that make the results' own."""
    rng = np.random.default_rng(3)
    reached = rng.random((30, 4, 12)) < np.linspace(0.2, 0.8, 12)
    columns = np.repeat(reached.reshape(30, -1), 2, axis=1).astype(float)  # neighbours that are alike
    highest = Highest([0, 24, 48, 72])
    expected = 100 * reached.mean(axis=0).max(axis=1).mean()
    assert highest(columns.mean(axis=0)) == pytest.approx(expected)
    kept, thin = highest.needs(columns)
    assert kept.sum() == 48 and thin(columns[:, kept].mean(axis=0)) == pytest.approx(expected)
    histograms = rng.integers(0, 50, (20, 2, 9)) * (rng.random(9) < 0.7)
    histograms[..., -1] = 0
    precise = PixelAveragePrecision()
    columns = histograms.reshape(20, -1)
    expected = pixels.pixel_average_precision(histograms.sum(axis=0))
    kept, thin = precise.needs(columns)
    assert precise(columns.mean(axis=0)) == pytest.approx(expected)
    assert thin(columns[:, kept].mean(axis=0)) == pytest.approx(expected)
    several = np.stack([columns[:5].mean(axis=0), columns[5:].mean(axis=0)])
    assert precise(several).tolist() == pytest.approx([float(precise(one)) for one in several])
    top, random = rng.integers(0, 9, (2, 7, 5))
    random[:, 3] = 0
    known = [value for value in erasing.erasing_ratios(top.sum(axis=0), random.sum(axis=0)) if value is not None]
    assert means.mean_ratio(np.concatenate([top, random], axis=1).mean(axis=0)) == pytest.approx(np.mean(known))


def test_whole_percents_reach_what_the_ious_reach():
    ious = np.array([0.29, 0.5, 0.3 - 1e-9, 1, 0, 0.7, 0.07, 1 / 3])
    found = boxes.whole_percent(ious)
    for iou in range(1, 101):
        assert ((found >= iou) == (ious >= iou / 100)).all()


# Experiment folders.

K = [0.1, 0.3, 0.5, 0.7, 0.9]


def experiment(folder, right=(1, 1, 0, 1, 1, 1), ids='abcdef', map_name='vanilla', method='CAM', shift=0.0):
    """Accuracy, remove-and-classify and cue localization of six images and four pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {'attribution_method': method, 'random_repeats': 2, 'iou_thresholds': [50]}
    names = np.array(list(ids))
    write(folder, 'accuracy', {'test_accuracy': 100 * float(np.mean(right)), 'images': 6}, ids=names, correct=right)
    topk = np.array([[1, 0], [1, 1], [0, 0], [1, 0], [0, 0], [0, 0]], bool)[:, [0, 1, 1, 1, 1]]
    random = np.array([[2, 1], [2, 1], [0, 0], [2, 1], [1, 1], [1, 0]])[:, [0, 1, 1, 1, 1]]
    write(
        folder,
        f'pixel_perturb_{map_name}',
        {'k': K, 'images': 6, 'correct': 4, 'ratio': [0.75, 0.5, 0.5, 0.5, 0.5], 'arguments': arguments},
        ids=names,
        correct=np.array([1, 1, 0, 1, 1, 0], bool),
        topk=topk,
        random=random,
    )
    pxap = np.array([10.0, 20, np.nan, 60]) + shift
    means = {'cue_1': 15.0 + shift, 'cue_2': 60.0 + shift, 'cue_3': None, 'mean': 30.0 + shift}
    write(
        folder,
        f'cue_location_{map_name}',
        {'per_pair': means, 'arguments': arguments},
        ids=np.array(['0 1', '0 2', '1 2', '1 3']),
        differing_parts=np.array([1, 1, 2, 2]),
        per_pair=pxap,
    )
    return str(folder)


def write(folder, name, result, **rows):
    (folder / f'{name}.json').write_text(json.dumps(result))
    arrays.write(str(folder / f'{name}.npz'), {key: np.asarray(array) for key, array in rows.items()})


def table(text):
    """The rows of a Markdown table as dicts."""
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line[:1] == '|']
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def run_here(monkeypatch, *words):
    """scripts/report.py in this process."""
    scripts = os.path.join(ROOT, 'scripts')
    monkeypatch.setattr(sys, 'argv', ['report.py', *map(str, words)])
    monkeypatch.setattr(sys, 'path', [*sys.path, scripts])
    runpy.run_path(os.path.join(scripts, 'report.py'), run_name='__main__')


def test_the_table_shows_each_figure_with_its_interval(tmp_path, capsys, monkeypatch):
    folder = experiment(tmp_path / 'run')
    run_here(monkeypatch, folder)
    [row] = table(capsys.readouterr().out)
    assert row['top-1'] == '83.33 [50.00, 100.00]' and row['cue released'] == '-'
    [known] = intervals.intervals([samples.read_sample(folder, 'cue_location', 'vanilla').scores[3]])
    assert row['cue per pair'] == f'30.00 [{known[0]:.2f}, {known[1]:.2f}]' and 10 <= known[0] < 30 < known[1] <= 60
    (tmp_path / 'run' / 'cue_location_vanilla.npz').unlink()  # a result of before
    run_here(monkeypatch, folder)
    assert table(capsys.readouterr().out)[0]['cue per pair'] == '30.00'


def test_the_running_values_of_cue_localization_have_no_interval(tmp_path):
    values = np.array([10.0, 20, 30, 60])
    means = {'cue_1': 15.0, 'cue_2': 45.0, 'cue_3': None, 'mean': 30.0}
    rows = {
        'ids': ['0 1', '0 2', '1 2', '1 3'],
        'differing_parts': [1, 1, 2, 2],
        'released': values,
        'per_pair': values,
    }
    write(tmp_path, 'cue_location_vanilla', {'released': means, 'per_pair': means}, **rows)
    scores = samples.read_sample(tmp_path, 'cue_location', 'vanilla').scores
    known = dict(zip([one.name for one in scores], intervals.intervals(scores, resamples=99)))
    assert known['cue released, mean'] is None and known['cue released, 1 part'] is None
    low, high = known['cue per pair, mean']
    assert 10 <= low < 30 < high <= 60


def test_arrays_of_another_run_are_found_out(tmp_path, monkeypatch, capsys):
    folder = experiment(tmp_path / 'run')
    result = json.loads((tmp_path / 'run/accuracy.json').read_text())
    (tmp_path / 'run/accuracy.json').write_text(json.dumps({**result, 'test_accuracy': 90.0}))
    with pytest.raises(SystemExit) as stop:
        run_here(monkeypatch, folder)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and 'accuracy.npz does not belong to' in error and len(error.splitlines()) == 1


def test_a_comparison_pairs_the_images_that_both_have(tmp_path, monkeypatch, capsys):
    """By their ids, whatever their order; each network's own map beside those of the same name."""
    a = experiment(tmp_path / 'a')
    b = experiment(tmp_path / 'b', (0, 1, 1, 1, 0, 1), 'xfedcb', 'jointll', 'CALM-EM', 2.0)
    run_here(monkeypatch, '--compare', a, b)
    out = capsys.readouterr().out
    rows = {row['score']: row for row in table(out)}
    assert [rows['top-1'][key] for key in ('A', 'B', 'B - A', 'n')] == ['80.00', '80.00', '0.00', '5']  # b-f; f-b
    assert rows['top-1']['p'] == '1.000' and '5 images are paired: A has 6, B has 6.' in out
    cue = rows['cue per pair, mean']
    assert (cue['map'], cue['A'], cue['B'], cue['B - A'], cue['n']) == (
        'vanilla / jointll',
        '30.00',
        '32.00',
        '2.00',
        '3',
    )
    assert cue['95 % interval'] == '[2.00, 2.00]' and cue['p'] == '0.250'  # three pairs: 2 of 8 exchanges
    assert rows['cue per pair, 1 part']['n'] == '2' and rows['cue per pair, 3 parts']['A'] == '-'
    assert rows['R_10']['A'] == '0.667' and 'top-1' not in list(rows)[1:]


def test_units_are_paired_by_their_ids_in_any_order():
    """Neither side is sorted, each has a unit that the other lacks: B is A and 1 for every image, by its name."""
    value = {name: 10.0 * n**2 for n, name in enumerate('abcdefg')}
    ids = [list('dbgaec'), list('fcadbge')]
    columns = [np.array([[value[name] + shift] for name in own]) for own, shift in zip(ids, (0, 1))]
    one, other = (samples.Sample('x.npz', 'images', np.array(own), [score(rows)]) for own, rows in zip(ids, columns))
    rows, others = comparison.common_rows(one, other)
    assert one.ids[rows].tolist() == other.ids[others].tolist() == list('dbgaec')
    [found] = comparison.compare_samples(one, other, '-').differences
    assert found.a == pytest.approx(np.mean([value[name] for name in 'dbgaec'])) and found.difference == pytest.approx(
        1
    )
    assert found.interval == pytest.approx((1, 1)) and found.p == pytest.approx(2 / 2**6)


def test_a_small_p_is_told_to_a_thousandth():
    texts = [comparison.p_text(p) for p in (0.00099, 0.001, 0.0049, 1.0, np.nan)]
    assert texts == ['< 0.001', '0.001', '0.005', '1.000', '-']


def test_a_comparison_of_a_run_with_itself(tmp_path, monkeypatch, capsys):
    folder = experiment(tmp_path / 'a')
    run_here(monkeypatch, '--compare', folder, folder)
    rows = table(capsys.readouterr().out)
    known = [row for row in rows if row['A'] != '-']
    assert len(known) == 9 and all(float(row['B - A']) == 0 and row['p'] == '1.000' for row in known)
    assert all(row['95 % interval'] in ('[0.00, 0.00]', '[0.000, 0.000]') for row in known)


def test_a_comparison_says_what_was_scored_differently(tmp_path, monkeypatch, capsys):
    folders = [experiment(tmp_path / name) for name in 'ab']
    run_here(monkeypatch, '--compare', *folders)
    assert 'differently' not in capsys.readouterr().out
    for folder, size in zip(folders, (64, 96)):
        path = os.path.join(folder, 'cue_location_vanilla.json')
        with open(path) as file:
            result = json.load(file)
        changes = {'crop_size': size, 'norm_type': f'n{size}', 'workers': size, 'cam_curve_interval': 0.1}
        changed = {**result, 'arguments': {**result['arguments'], **changes}, 'commit': f'{size}' + 'a' * 20}
        with open(path, 'w') as file:
            json.dump(changed, file)
    run_here(monkeypatch, '--compare', *folders)
    [line] = [line for line in capsys.readouterr().out.splitlines() if 'differently' in line]
    assert line.startswith(
        'scored differently, A / B: --crop_size 64 / 96; --norm_type n64 / n96; commit 64aaaaaaaaaa / 96aaaaaaaaaa (cue'
    )
    assert line.endswith('of vanilla)') and 'top-1' not in line and 'R_10' not in line


def test_the_settings_that_count_are_those_of_the_score_and_the_map():
    def changed(kind, maps, scores, **flags):
        results = [{'arguments': {flag: pair[side] for flag, pair in flags.items()}} for side in (0, 1)]
        return comparison.changed_settings(kind, maps, scores, *results)

    table = {'curve_steps': (4, 32), 'methods': (['a', 'b'], ['a']), 'metrics': ('win', 'all'), 'max_images': (1, 2)}
    assert changed('attribution_scores', ('a', 'b'), {'deletion'}, **table) == ('--curve_steps 4 / 32',)
    assert changed('attribution_scores', ('a', 'b'), {'win'}, **table)[1] == '--methods a,b / a'
    noise = {'smooth_grad_nr_iter': (5, 50), 'batch_size': (1, 2)}
    assert changed('wsol', ('smooth_grad', 'smooth_grad'), {'PxAP'}, **noise) == ('--smooth_grad_nr_iter 5 / 50',)
    assert changed('wsol', ('smooth_grad', 'vanilla'), {'PxAP'}, **noise) == ()
    assert changed('wsol', ('x', 'x'), {'PxAP'}, curve_steps=(4, 32), cam_curve_interval=(0.1, 0.1)) == ()
    ksize = {'smoothing_ksize': (1, 11)}
    assert changed('wsol', ('input_grad', 'input_grad'), {'PxAP'}, **ksize) == ('--smoothing_ksize 1 / 11',)
    assert changed('wsol', ('grad_cam', 'grad_cam'), {'PxAP'}, **ksize) == ()  # smooths gradient maps only
    blurred = {**noise, 'score_map_process': ('smooth_grad', 'smooth_grad')}
    names = ('smooth_grad_blur8', 'smooth_grad_blur8')
    assert changed('cue_location', names, {'cue'}, **blurred) == ('--smooth_grad_nr_iter 5 / 50',)


@pytest.mark.parametrize('kind', ['accuracy', 'cue_location', 'attribution_scores'])
def test_a_comparison_across_data_sets_is_told(kind):
    """Images and pairs of classes of different sets may have the same names: `0 1` is a pair of each."""
    sets = [{'arguments': {'dataset': name}} for name in ('CUB', 'ToyBirds')]
    assert comparison.changed_settings(kind, ('m', 'm'), set(), *sets) == ('--dataset CUB / ToyBirds',)


def test_two_maps_of_one_experiment_are_compared(tmp_path, monkeypatch, capsys):
    experiment(tmp_path / 'a', method='CALM-EM')
    folder = experiment(tmp_path / 'a', method='CALM-EM', map_name='jointll', shift=5.0)
    run_here(monkeypatch, '--compare', f'{folder}:vanilla', f'{folder}:jointll')
    rows = {row['score']: row for row in table(capsys.readouterr().out)}
    assert rows['cue per pair, mean']['B - A'] == '5.00' and rows['cue per pair, mean']['map'] == 'vanilla / jointll'
    assert rows['top-1']['map'] == '-' and rows['R_30']['B - A'] == '0.000'
    one = comparison.Side('x', folder, None)
    assert comparison.map_pairs(one, one, 'cue_location') == [('jointll', 'jointll'), ('vanilla', 'vanilla')]
    assert comparison.map_pairs(one, one._replace(map='vanilla'), 'cue_location') == [('vanilla', 'vanilla')]


def refused(monkeypatch, capsys, *words):
    """The one line that report.py ends with."""
    with pytest.raises(SystemExit) as stop:
        run_here(monkeypatch, *words)
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(lines) == 1
    return lines[0]


def test_what_cannot_be_compared_is_one_line(tmp_path, monkeypatch, capsys):
    a = experiment(tmp_path / 'a')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old' / 'accuracy.json').write_text(json.dumps({'test_accuracy': 5.0}))
    (tmp_path / 'other').mkdir()
    write(tmp_path / 'other', 'wsol_vanilla', {'MaxBoxAcc': 1.0}, ids=['a'])

    def said(*words):
        return refused(monkeypatch, capsys, *words)

    assert 'no folder nowhere: --compare takes two' in said('--compare', a, 'nowhere')
    assert 'empty holds no arrays (*.npz)' in said('--compare', a, tmp_path / 'empty')
    assert 'old holds no arrays (*.npz)' in said('--compare', tmp_path / 'old', a)
    assert 'other has wsol_vanilla' in said('--compare', a, tmp_path / 'other')
    assert 'have none of their images in common' in said('--compare', a, experiment(tmp_path / 'b', ids='uvwxyz'))
    assert 'has the same id twice' in said('--compare', a, experiment(tmp_path / 'c', ids='aacdef'))
    assert "no map 'jointll' in" in said('--compare', f'{a}:jointll', a)
    assert 'takes only its two experiments' in said(a, '--compare', a, a)
    assert 'is given twice' in said(a, f'{a}/')
    assert 'give experiment folders, or --compare A B' in said()
    more = experiment(tmp_path / 'more', map_name='jointll')
    assert "more has no map 'vanilla' to compare with" in said('--compare', f'{a}:vanilla', more)
    assert 'more:MAP with MAP among jointll' in said('--compare', f'{a}:vanilla', more)
    assert "more has no map 'vanilla' to compare with" in said('--compare', more, f'{a}:vanilla')
    for stem, key in (
        ('accuracy', 'test_accuracy'),
        ('cue_location_jointll', 'per_pair'),
        ('pixel_perturb_jointll', 'ratio'),
    ):
        path = tmp_path / 'more' / f'{stem}.json'
        result = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in result.items() if name != key}))
        assert f'{stem}.npz do not have what this version writes (KeyError: {key!r})' in said('--compare', more, more)
        path.write_text(json.dumps(result))
    (tmp_path / 'a' / 'accuracy.npz').write_bytes(b'cut off')
    assert 'accuracy.npz is damaged' in said('--compare', a, a)


def test_seeds_are_listed_and_averaged(tmp_path, monkeypatch, capsys):
    folders = [experiment(tmp_path / f'CAM_CUB-seed{seed}', shift=2.0 * seed) for seed in (0, 1, 10)]
    alone = experiment(tmp_path / 'other-seed3')
    run_here(monkeypatch, folders[2], alone, *folders[:2])
    rows = table(capsys.readouterr().out)
    assert [row['method'] for row in rows] == ['CAM, seed 10', 'CAM', 'CAM, seed 0', 'CAM, seed 1', 'CAM, 3 seeds']
    values = [30, 32, 50]
    assert rows[4]['cue per pair'] == f'{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}'
    assert rows[4]['top-1'] == '83.33 ± 0.00' and rows[4]['cue exact'] == '-'
    assert rows[0]['cue per pair'].startswith('50.00 [')
    run_here(monkeypatch, tmp_path, '--table=cue_localization', '--dataset=CUB')
    out = capsys.readouterr().out
    [row] = [row for row in table(out) if row['map'] == 'vanilla' and row['parts'] == 'mean']
    assert row['trained per pair'] == f'{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}' and row['trained'] == '-'
    assert [row[f'seed {seed} per pair'] for seed in (0, 1, 10)] == ['30.00', '32.00', '50.00']
    assert 'standard deviation over the seeds' in out


def test_no_seeds_no_columns(tmp_path, capsys):
    experiment(tmp_path / 'CAM_CUB')
    tables.print_paper_table('cue_localization', str(tmp_path), ['CUB'])
    assert 'seed' not in capsys.readouterr().out


def test_tables_without_arrays_load_neither_pytorch_nor_scipy(tmp_path):
    (tmp_path / 'accuracy.json').write_text(json.dumps({'test_accuracy': 5.0}))
    code = (
        'import sys; from report import tables; tables.print_summary(sys.argv[1:]); '
        'sys.exit(any(name in sys.modules for name in ("torch", "scipy")))'
    )
    assert subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=ROOT, capture_output=True).returncode == 0


def test_arrays_need_their_result(tmp_path):
    experiment(tmp_path / 'run')
    (tmp_path / 'run' / 'accuracy.json').unlink()
    assert samples.read_sample(tmp_path / 'run', 'accuracy') is None
    with pytest.raises(UserError, match='no score in common'):
        comparison.compare_runs(
            comparison.Side('a', str(tmp_path / 'run'), None), comparison.Side('b', str(experiment_of(tmp_path)), None)
        )


def experiment_of(tmp_path):
    folder = tmp_path / 'accuracy_alone'
    folder.mkdir()
    write(folder, 'accuracy', {'test_accuracy': 100.0}, ids=['a'], correct=[True])
    return folder


def test_the_page_shows_what_the_table_shows(tmp_path):
    folders = [experiment(tmp_path / f'CAM-seed{seed}', shift=2.0 * seed) for seed in (0, 1)]
    runs, notes = results.read_runs(folders)
    [known] = intervals.intervals([samples.read_sample(folders[0], 'cue_location', 'vanilla').scores[3]])
    text = f'30.00 [{known[0]:.2f}, {known[1]:.2f}]'
    summary = overview.summary_section(runs)
    assert text in summary and '31.00 ± 1.41' in summary and '<th scope="row">CAM</th>' in summary
    assert text in evaluations.cue_section(runs) and '83.33 [50.00, 100.00]' in evaluations.accuracy_section(runs)
    drawn = evaluations.erasing_section(runs)
    assert drawn.count('class="interval') == 10 and '0.75 [' in drawn and not notes
