"""Pieces of the report by hand: what is read from folders, what is drawn where, which commands are offered."""

import base64
import json
import math
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data_loaders import Split
from engine import experiments
from report import figures, results
from report.page import charts, commands, evaluations, gallery, markup, overview
from wsol.cub_parts import Pair
from wsol.errors import UserError


def run_of(name='r', folder='save/r', style=0, epochs=(), arguments=None, **results_by_name):
    return results.RunFolder(name, folder, style, {}, list(epochs), arguments or {}, results_by_name)


# ---- results


def test_a_log_is_read_with_care(tmp_path):
    """Of an epoch that was repeated the last record counts; what is no record is counted."""
    path = tmp_path / 'log.jsonl'
    records = [
        {'arguments': {'lr': 1}, 'commit': 'a'},
        {'epoch': 2, 'loss': 2.0},
        {'epoch': 1, 'loss': 3.0},
        {'arguments': {'lr': 2}},
        {'epoch': 2, 'loss': 1.5},
        {'epoch': 3},
        {'epoch': 'x', 'loss': 1},
    ]
    path.write_text(''.join(json.dumps(record) + '\n' for record in records) + '{"epoch": 4, "lo\n7\n')
    notes = []
    first, epochs = results.read_log(str(path), notes)
    assert first == records[0] and epochs == [{'epoch': 1, 'loss': 3.0}, {'epoch': 2, 'loss': 1.5}]
    assert notes == [f'{path}: 2 lines cannot be read']
    assert results.read_log(str(tmp_path / 'none'), notes) == ({}, []) and len(notes) == 1


def test_folders_of_one_name_are_named_by_their_paths(tmp_path):
    folders = [tmp_path / 'a' / 'run', tmp_path / 'b' / 'run', tmp_path / 'other']
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[2] / 'accuracy.json').write_text('{"arguments": {"lr": 3}, "test_accuracy": 5}')
    (folders[1] / 'log.jsonl').write_text('{"arguments": {"lr": 4}}\n')
    runs, notes = results.read_runs([f'{folder}' for folder in folders])
    assert [run.name for run in runs] == [str(folders[0]), str(folders[1]), 'other']
    assert [run.style for run in runs] == [0, 1, 2] and notes == []
    assert [run.arguments for run in runs] == [{}, {'lr': 4}, {'lr': 3}]
    assert results.read_runs([f'{folders[2]}/'])[0][0].name == 'other'


def test_results_are_found_by_their_kind(tmp_path):
    run = run_of(**{'wsol_jointll.json': {'a': 1}, 'wsol.json': {'b': 1}, 'wsolid.json': {'c': 1}, 'wsol_x.json': {}})
    assert [(name, content) for _, name, content in results.results_of([run], 'wsol')] == [
        ('jointll', {'a': 1}),
        ('', {'b': 1}),
    ]
    for name in ('cue_location_jointll', 'pixel_perturb_var_grad', 'pixel_perturb_jointll', 'wsol_vanilla'):
        (tmp_path / f'{name}.json').touch()
    assert results.maps_scored(str(tmp_path)) == ['jointll', 'var_grad']
    assert results.maps_scored(str(tmp_path / 'none')) == [None]


# ---- charts


def test_ticks_are_round_values():
    cases = (0, 41, 10), (0.9, 1.1, 0.05), (0, 5, 1), (0, 5.1, 2), (-3, 7, 2), (0, 24, 5), (0, 0.5, 0.1)
    for low, high, step in cases:
        found = charts.ticks(low, high)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        assert found == pytest.approx([step * n for n in range(first, last + 1)])


def test_positions_along_an_axis():
    linear = charts.Axis([0, 10], 100, 200)
    assert linear(0) == 100 and linear(10) == pytest.approx(100 + 100 / 1.04)
    shown = charts.Axis([4, 10], 0, 100, bottom=0)
    assert shown(0) == 0 and charts.Axis([4, 10], 0, 100, bottom=5)(4) == 0
    flat = charts.Axis([3], 0, 100)
    assert flat(2.5) == 0 and flat(3.5) == pytest.approx(100 / 1.04)
    decades = charts.Axis([0.02, 0.5], 0, 100, log=True)
    assert (decades.low, decades.high, decades.ticks) == (-2, 0, [0.01, 0.1, 1]) and decades(0.1) == pytest.approx(50)
    assert charts.Axis([0.01, 1], 0, 100, log=True).ticks == [0.01, 0.1, 1]
    assert charts.Axis([1], 0, 100, log=True).ticks == [1, 10]


def test_bars_stand_beside_each_other_on_the_line_of_zero():
    chart = charts.bar_chart(
        't', 'x', 'y', ['g', 'h'], [charts.Bars('a', [10.0, -5.0], 0), charts.Bars('b', [5.0, None], 9)]
    )
    found = re.findall(r'bar (c\d)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', chart)
    bars = [(colour, *map(float, numbers)) for colour, *numbers in found]
    assert [bar[0] for bar in bars] == ['c0', 'c0', 'c1']  # eight colours, then again
    (_, x1, y1, w1, h1), (_, x2, y2, _, h2), (_, x3, y3, _, h3) = bars
    room = (charts.WIDTH - charts.LEFT - charts.RIGHT) / 2
    assert x2 - x1 == pytest.approx(room, abs=0.11) and x3 - x1 == pytest.approx(w1 + 1, abs=0.11)
    assert (h2, h3) == (pytest.approx(h1 / 2, abs=0.11), pytest.approx(h1 / 2, abs=0.11))
    assert y1 + h1 == pytest.approx(y2, abs=0.2) and y3 + h3 == pytest.approx(y2, abs=0.2)  # below zero it hangs
    assert x1 + w1 + 0.5 == pytest.approx(charts.LEFT + room / 2, abs=0.2)  # the middle of the first group


def test_what_is_drawn_and_what_is_written_of_a_number():
    assert [charts.drawable(value, log) for value, log in ((0, False), (0, True), (-1, False), (2, True))] == [
        True,
        False,
        True,
        True,
    ]
    texts = [markup.number(value) for value in (12.3456, 0.000123456, None, float('inf'), True, 'x', 5)]
    assert texts == ['12.35', '0.0001235', '-', '-', '-', '-', '5']
    assert markup.html_list([]) == '' and markup.html_list(['<a']) == '<ul class="missing"><li>&lt;a</li></ul>'


def test_tables_of_whatever_an_object_holds():
    page = markup.tables_of_anything(
        {'note': 'n', 'arguments': {'x': 1}, 'rows': [{'a': 1.23456}, {'b': [1] * 9}], 'inner': {'deep': {'c': 2}}}
    )
    cells = [re.findall(r'<t[hd](?: [^>]*)?>(.*?)</t[hd]>', table) for table in page]
    assert cells[0] == ['name', 'value', 'note', 'n']
    assert cells[1] == ['rows', 'a', 'b', '1', '1.235', '-', '2', '-', '9 values']
    assert cells[2] == ['inner', 'c', 'deep', '2']


# ---- sections


def test_rates_of_groups_that_ever_differ_from_the_first():
    epochs = [{'epoch': 1, 'lr': [0.1, 0.1, 1.0]}, {'epoch': 2, 'lr': [0.1, 0.1, 0.1]}]
    found = overview.learning_rates(run_of('r', style=3, epochs=epochs))
    assert [(one.name, one.points, one.style, one.dashed) for one in found] == [
        ('r', [(1, 0.1), (2, 0.1)], 3, False),
        ('r, group 3', [(1, 1.0), (2, 0.1)], 3, True),
    ]


def test_arguments_side_by_side():
    one = run_of('a', arguments={'lr': 1, 'x': 'é'})._replace(first={'commit': 'c' * 20, 'versions': {'torch': '2'}})
    other = run_of('b', arguments={'lr': 2}, **{'wsol_x.json': {'arguments': {'lr': 2, 'y': [1]}}, 'bad.json': {}})
    rows = {row[0]: row[1:] for row in overview.argument_rows([one, other])}
    assert rows == {
        'lr': ['1', '2'],
        'x': ['"é"', '-'],
        'commit': ['c' * 12, '-'],
        'device': ['-', '-'],
        'torch': ['2', '-'],
    }
    assert overview.evaluation_rows([one, other]) == [['b', 'wsol_x.json', 'y=[1]']]


def test_results_have_their_runs_colour_or_their_own():
    runs = [run_of(style=4), run_of(style=7)]
    assert evaluations.styles_of([(runs[1], 'm'), (runs[0], 'm')], runs) == [7, 4]
    assert evaluations.styles_of([(runs[1], 'm'), (runs[0], 'm'), (runs[0], 'n')], runs) == [0, 1, 2]


def test_published_rows_of_which_a_number_is_known():
    published = {
        'digitised': True,
        'rows': [
            {'name': 'A', 'map': 'm', 'paper': {'CUB': [1.0, None], 'ILSVRC': [None, None]}, 'readme': {'CUB': [3, 4]}},
            {'name': 'B', 'architecture': 'vgg16', 'paper': {'OpenImages': [0.5, 0.25]}},
        ],
    }
    assert evaluations.published_rows(published, ['t']) == [
        ['paper: A', 'CUB', 'm', '1.00~', '-', 't'],
        ['README: A', 'CUB', 'm', '3.00~', '4.00~', 't'],
        ['paper: B, vgg16', 'OpenImages', '-', '0.50~', '0.25~', 't'],
    ]


# ---- commands


def test_the_command_that_makes_what_is_missing():
    arguments = {'architecture': 'vgg_tiny', 'attribution_method': 'CALM-EM', 'crop_size': 224, 'lr': 9}
    run = run_of(folder='save/deep/run', arguments=arguments)
    words = shlex.split(commands.evaluation_command('eval_wsol.py', run, '--x'))
    assert words == [
        'python',
        'eval_wsol.py',
        '--experiment_name=deep/run',
        '--architecture=vgg_tiny',
        '--attribution_method=CALM-EM',
        '--load_checkpoint=save/deep/run',
        '--score_map_process=jointll',
        '--x',
    ]
    assert commands.cue_command(run).endswith('--norm_type=clipping --threshold_type=log')
    cam = run_of(folder='/far/away/run', arguments={'attribution_method': 'CAM'})
    assert commands.cue_command(cam).endswith('--load_checkpoint=/far/away/run --score_map_process=vanilla')
    assert '--experiment_name=run --save_root=/far/away' in commands.command_line('main.py', cam)
    evaluated = run_of(folder='save/e', arguments={**arguments, 'load_checkpoint': 'released/CALM'})
    assert '--load_checkpoint=released/CALM ' in commands.cue_command(evaluated)  # save/e has no checkpoint
    trained = evaluated._replace(first={'arguments': {}})  # from the released checkpoint
    assert '--load_checkpoint=save/e ' in commands.cue_command(trained)
    classifier = run_of(folder='save/c', arguments={'classifier': 'timm/x', 'attribution_method': 'CAM'})
    assert commands.cue_command(classifier).endswith('--classifier=timm/x --score_map_process=grad_cam')
    assert not commands.lacks(classifier, 'accuracy') and commands.lacks(evaluated, 'accuracy')
    assert commands.own_map(run_of()) == 'vanilla' and commands.own_map(run) == 'jointll'
    with_result = run_of('has', **{'wsol_m.json': {'a': 1}})
    text = commands.missing_results([with_result, cam], 'wsol', lambda run: run.name)
    assert 'No wsol result yet' in text and '<li>r: ' in text and 'has' not in text
    assert commands.missing_results([with_result], 'wsol', None) == ''


def test_what_is_missing_is_only_what_the_data_allow(tmp_path):
    def missing(*names, **arguments):
        run = run_of('r', arguments=arguments, **{name: {'a': 1} for name in names})
        return next(commands.missing_lines([run]), None)

    every = 'accuracy, cue localization, remove-and-classify, weakly supervised localization, attribution scores'
    assert missing(dataset='CUB') == f'r has no result yet of {every}: the page has the commands'
    without_parts = every.replace('cue localization, ', '')
    assert f'yet of {without_parts}:' in missing(dataset='OpenImages')
    place = {'dataset': 'folder', 'data_root': str(tmp_path)}
    assert 'of accuracy, remove-and-classify, attribution scores:' in missing(**place)
    (tmp_path / 'masks').mkdir()
    assert f'yet of {without_parts}:' in missing(**place)
    assert missing('accuracy.json', 'pixel_perturb_x.json', 'wsol_x.json', 'attribution_scores.json', **place) is None
    assert missing(dataset='CUB', images=['x.jpg']) is None
    parted = run_of('r', arguments=place)
    assert commands.missing_results([parted], 'cue_location', commands.cue_command) == ''


# ---- gallery


def test_the_classes_offered_are_the_images_own_and_the_most_probable():
    probs = torch.tensor([[0.1, 0.6, 0.2, 0.1], [0.1, 0.2, 0.6, 0.1], [0.1, 0.1, 0.5, 0.3]])
    assert gallery.offered_classes(0, probs, 3) == [0, 2, 1]  # means: .1, .3, .43, .17
    assert gallery.offered_classes(2, probs, 9) == [2, 1, 3, 0] and gallery.offered_classes(3, probs, 1) == [3]


def test_the_gallerys_images_are_spread_over_the_split(tmp_path):
    ids = [f'{n}.png' for n in range(10)]
    for n, name in enumerate(ids):
        Image.new('RGB', (6, 4), (20 * n, 0, 0)).save(tmp_path / name)
    split = Split('test', str(tmp_path), '', ids, [0] * 10, 1)
    for count, numbers in ((1, [5]), (2, [2, 7]), (3, [1, 5, 8]), (99, [*range(10)])):
        batch = gallery.load_batch(split, count)
        assert batch.numbers == numbers and len(batch.pictures) == len(numbers)
        assert [picture.getpixel((0, 0))[0] for picture in batch.pictures] == [20 * n for n in numbers]


def test_the_gallery_is_exact_however_the_network_was_trained(tmp_path, monkeypatch):
    """The precision of the training, its memory format and its compiler are of the training alone."""
    seen = []
    monkeypatch.setattr(gallery, 'load_experiment', lambda path, arguments, **_: seen.append(arguments))
    monkeypatch.setattr(gallery, 'load_experiment_split', lambda experiment, name: None)
    (tmp_path / 'last_checkpoint.pth.tar').touch()
    trained = {'amp': 'bf16', 'channels_last': True, 'compile': True, 'smoothing_ksize': 5, 'seed': 4}
    gallery.load_exhibit(run_of(folder=str(tmp_path), arguments=trained))
    assert seen == [{'amp': 'off', 'channels_last': False, 'compile': False, 'smoothing_ksize': 1, 'seed': 4}]


def test_the_gallery_shows_no_network_that_a_training_began_from(tmp_path, monkeypatch):
    """An evaluation's --load_checkpoint is the network of the results; a training's is another network."""
    seen = []
    monkeypatch.setattr(gallery, 'load_experiment', lambda path, arguments, **_: seen.append(path))
    monkeypatch.setattr(gallery, 'load_experiment_split', lambda experiment, name: None)
    arguments = {'load_checkpoint': 'start'}
    evaluated = run_of(folder=str(tmp_path), arguments=arguments, **{'wsol_x.json': {'PxAP': 1.0}})
    gallery.load_exhibit(evaluated)
    assert seen == ['start']
    trained = run_of(folder=str(tmp_path), arguments=arguments, **{'accuracy.json': {'best_val_accuracy': 1.0}})
    for run in (trained, evaluated._replace(first={'arguments': arguments})):
        with pytest.raises(UserError, match='no checkpoint .*last_checkpoint.pth.tar: train it'):
            gallery.load_exhibit(run)


def test_maps_are_kept_in_sixteen_bits_up_to_64_pixels():
    for side, top, size in ((64, 32767, 2), (65, 127, 1)):
        record = gallery.encode(np.linspace(-1, 1, side * side).reshape(1, side, side))
        assert record['scales'] == pytest.approx([1 / top])
        assert len(base64.b64decode(record['data'])) == side * side * size


# ---- pairs, plots, explanations


def test_pairs_of_new_parts_first():
    found = [
        Pair(0, 1, {1}, ['has_bill::a']),
        Pair(0, 2, {1}, ['has_bill::b']),
        Pair(1, 2, {5, 6}, ['has_tail::a', 'has_leg::a']),
        Pair(2, 3, {5}, ['has_tail::a']),
        Pair(1, 3, {7}, ['has_wing::a']),
    ]
    split = SimpleNamespace(labels=[3, 2, 1, 0, 0])
    assert figures.choose_pairs(split, found, 2) == [(3, found[0]), (1, found[3])]
    assert [pair for _, pair in figures.choose_pairs(split, found, 9)] == [found[0], found[3], found[4]]
    assert figures.part_of(found[2]) == 'has_tail'


def test_curves_of_scores_begin_at_nothing_and_end_at_all():
    rows = {'a': {'deletion_curve': [1, 0, 0], 'R_k': [1] * 5}}
    curves = figures._known_curves(rows, 2, (0.1, 0.5))
    assert list(curves) == ['deletion_curve', 'R_k']
    assert curves['deletion_curve'][0].tolist() == [0, 50, 100] and curves['R_k'][0].tolist() == [10, 50]
    assert 'lower' in curves['deletion_curve'][1][0] and 'lower' in curves['R_k'][1][0]


def test_an_explanation_is_of_numbers_or_of_ranks():
    """-r is the image's r-th most probable class."""

    class Maker:
        def __call__(self, images, output, classes, numbers, shared):
            return [np.array([[[10 * n + y]] for y in row.tolist()]) for n, row in zip(numbers, classes)]

    probs = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    model = lambda images: SimpleNamespace(probs=probs)  # noqa: E731
    first, second = experiments.explain_batch(model, {'m': Maker()}, torch.zeros(2, 3, 1, 1), [-1, 2, -3], [7, 4])
    assert first.probs == pytest.approx([0.2, 0.5, 0.3]) and second.classes == [0, 2, 1]
    assert first.classes == [1, 2, 0] and first.maps['m'].flatten().tolist() == [71, 72, 70]
    assert second.maps['m'].flatten().tolist() == [40, 42, 41]


def interval_lines(chart):
    """(class of its colour, x, lower end, upper end in pixels) of each interval that a chart draws."""
    found = re.findall(r'<path class="interval ?(c?\d?)" d="M([\d.]+),([\d.]+)V([\d.]+)m-3,0h6M', chart)
    return [(colour, *map(float, ends)) for colour, *ends in found]


def test_bars_have_their_intervals_in_the_middle():
    bars = charts.Bars('a', [10.0, 5.0], 0, [(8.0, 20.0), None])
    chart = charts.bar_chart('t', 'x', 'y', ['g', 'h'], [bars, charts.Bars('b', [5.0, None], 1)])
    [(colour, x, low, high)] = interval_lines(chart)
    axis = charts.Axis([0, 20], charts.HEIGHT - charts.BOTTOM, charts.TOP)  # the ends are on the paper
    assert (colour, low, high) == ('', pytest.approx(axis(8), abs=0.06), pytest.approx(axis(20), abs=0.06))
    left, width = map(float, re.search(r'bar c0" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', chart).groups())
    assert x == pytest.approx(left + width / 2, abs=0.2)
    assert '<td>10 [8, 20]</td><td>5</td>' in chart


def test_lines_have_their_intervals_beside_each_other():
    one = charts.Series('a', [(10, 0.5), (30, 1.0)], 2, intervals={10: (0.25, 2.0), 30: None})
    two = charts.Series('b', [(10, 0.75), (30, None)], 3, intervals={10: (0.5, 1.5), 30: (0.1, 9.0)})
    chart = charts.line_chart('t', 'x', 'y', [one, two], bottom=0)
    (first, x1, low, high), (second, x2, *_) = interval_lines(chart)
    assert (first, second) == ('c2', 'c3') and x2 - x1 == pytest.approx(3, abs=0.11)
    assert low > high and '<td>0.5 [0.25, 2]</td>' in chart
    plain = charts.line_chart('t', 'x', 'y', [one._replace(intervals=None), two._replace(intervals=None)])
    assert interval_lines(plain) == [] and '[' not in plain
