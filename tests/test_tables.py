"""Tables of results as text: every number in its own column."""

import csv
import io
import json
import os
import re

import commands
import numpy as np
import pytest

from report import tables
from report.attribution_scores import (
    best_score,
    print_score_tables,
    score_text,
    scores_csv,
    scores_markdown,
    title_with_arrow,
)
from wsol.scoring.scores import METRICS

MEANS = {'cue_1': 11.0, 'cue_2': 12.0, 'cue_3': 13.0, 'mean': 14.0}
RATIOS = [0.1, 0.2, None, 0.4, 0.5]


def write(folder, **results):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in results.items():
        (folder / f'{name}.json').write_text(json.dumps(value))
    return str(folder)


def shown(folder):
    """The rows of an experiment, {column: text}."""
    return [dict(zip(tables.COLUMNS, one.row(), strict=True)) for one in tables.summaries(folder)]


def test_every_number_of_an_experiment_stands_in_its_column(tmp_path):
    folder = write(
        tmp_path / 'run',
        accuracy={'test_accuracy': 61.234, 'arguments': {'attribution_method': 'CAM'}},
        cue_location_jointll={
            'released': {**MEANS, 'mean': 21.0},
            'per_pair': {**MEANS, 'mean': 22.0},
            'exact': {**MEANS, 'mean': 23.0},
            'arguments': {'attribution_method': 'CALM-EM'},
        },
        pixel_perturb_jointll={'ratio': RATIOS, 'correct': 3, 'images': 4, 'arguments': {'attribution_method': 'x'}},
        pixel_perturb_var_grad={'ratio': RATIOS[::-1], 'correct': 3, 'images': 4, 'arguments': {}},
    )
    first, second = shown(folder)
    assert first == {
        'method': 'CALM-EM',
        'map': 'jointll',
        'top-1': '61.23',
        'cue released': '21.00',
        'cue per pair': '22.00',
        'cue exact': '23.00',
        'R_10': '0.10',
        'R_30': '0.20',
        'R_50': '-',
        'R_70': '0.40',
        'R_90': '0.50',
    }
    assert [second[name] for name in ('method', 'map', 'cue released')] == ['-', 'var_grad', '-']
    assert [second[f'R_{k}0'] for k in (1, 3, 5, 7, 9)] == ['0.50', '0.40', '-', '0.20', '0.10']


def test_results_of_a_classifier_and_of_saved_maps_are_not_called_cam(tmp_path):
    """CAM is the default of a flag that neither of them uses; a training starts from its --classifier."""
    arguments = {'attribution_method': 'CAM', 'classifier': 'timm/x'}
    erased = {'ratio': RATIOS, 'correct': 3, 'images': 4, 'arguments': arguments}
    boxes = {'MaxBoxAcc': 1.0, 'split': 'test', 'arguments': arguments}
    saved = {**boxes, 'arguments': {'attribution_method': 'CAM', 'scoremap_root': 'maps'}}
    folder = write(tmp_path / 'a', pixel_perturb_grad_cam=erased, wsol_grad_cam=boxes, wsol_scoremaps=saved)
    assert [row['method'] for row in shown(folder)] == ['classifier']
    assert [row[1] for row in tables.localization_rows([folder])] == ['classifier', '-']
    assert shown(write(tmp_path / 'b', accuracy={'test_accuracy': 1.0, 'arguments': arguments}))[0]['method'] == 'CAM'


def test_what_an_experiment_lacks(tmp_path):
    """Without an accuracy it is that of remove-and-classify; without anything there is one row of dashes."""
    erased = write(tmp_path / 'a', pixel_perturb_vanilla={'ratio': RATIOS, 'correct': 3, 'images': 8})
    assert [row['top-1'] for row in shown(erased)] == ['37.50']
    empty = write(tmp_path / 'b')
    assert shown(empty) == [dict.fromkeys(tables.COLUMNS, '-')]


def test_localization_has_a_table_with_the_scores_that_exist(tmp_path, capsys):
    arguments = {'attribution_method': 'CAM'}
    boxed = write(tmp_path / 'a', wsol_vanilla={'MaxBoxAcc': 50.125, 'split': 'val', 'arguments': arguments})
    masked = write(tmp_path / 'b', wsol_grad_cam={'PxAP': 7.0, 'split': 'test'})
    tables.print_summary([boxed, masked])  # no row of dashes
    tables.print_localization([boxed, masked, write(tmp_path / 'none')])
    title, head, _, *rows = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in (head, *rows)]
    assert title == 'localization:' and cells == [
        ['experiment', 'method', 'map', 'split', 'MaxBoxAcc', 'PxAP'],
        [boxed, 'CAM', 'vanilla', 'val', '50.12', '-'],
        [masked, '-', 'grad_cam', 'test', '-', '7.00'],
    ]
    tables.print_localization([str(tmp_path / 'none')])
    assert capsys.readouterr().out == ''


def test_the_printed_table_is_aligned(tmp_path, capsys):
    tables.print_summary([write(tmp_path / 'a', accuracy={'test_accuracy': 5.0}), write(tmp_path / 'b')])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1 and set(lines[1]) == set('| -')
    assert [cell.strip() for cell in lines[2].strip('|').split('|')][:4] == ['-', '-', '5.00', '-']


def test_numbers_as_text():
    assert [tables.number_text(value) for value in (None, 0, 1.005, 12)] == ['-', '0.00', '1.00', '12.00']
    assert tables.number_text(1.5, 3, '~') == '1.500~' and tables.number_text(None, mark='~') == '-'
    drop = METRICS['average_drop']
    assert score_text(12.345, drop) == '12.35' and score_text(0.12345, METRICS['deletion']) == '0.123'


def test_what_each_table_takes_of_a_result():
    result = {
        'released': MEANS,
        'per_pair': {key: -value for key, value in MEANS.items()},
        'ratio': RATIOS,
        'test_accuracy': 1.0,
        'MaxBoxAcc': 2.0,
        'MaxBoxAccV2': 3.0,
        'PxAP': 4.0,
    }
    found = {name: {kind: take(result) for kind, take in kinds.items()} for name, (_, kinds) in tables.TABLES.items()}
    assert found == {
        'cue_localization': {'': [11, 12, 13, 14], ' per pair': [-11, -12, -13, -14]},
        'remove_and_classify': {'': RATIOS},
        'classification': {'': [1]},
        'wsol': {'': [2, 3, 4]},
    }
    for _, kinds in tables.TABLES.values():
        assert all({*take({})} == {None} for take in kinds.values())
    assert [pattern.format(map='m') for pattern, _ in tables.TABLES.values()] == [
        'cue_location_m.json',
        'pixel_perturb_m.json',
        'accuracy.json',
        'wsol_m.json',
    ]


def test_our_numbers_are_of_the_given_checkpoint_then_of_the_trained_run(tmp_path):
    for place, value in (('given/CAM_CUB_vgg16', 70.0), ('CAM_CUB_vgg16', 71.0), ('CAM_CUB', 72.0)):
        write(tmp_path / place, accuracy={'test_accuracy': value})
    row = {'method': 'CAM', 'architecture': 'vgg16'}
    assert tables.our_numbers('classification', row, 'CUB', str(tmp_path)) == [[70], [71]]
    assert tables.our_numbers('classification', {'method': 'CAM'}, 'CUB', str(tmp_path)) == [[None], [72]]


def test_a_table_of_the_paper_has_the_scores_of_the_data_set(tmp_path, capsys):
    write(tmp_path / 'CAM_OpenImages', wsol_vanilla={'PxAP': 60.25, 'MaxBoxAcc': 1.0})
    write(tmp_path / 'given' / 'CAM_CUB', wsol_vanilla={'PxAP': 1.0, 'MaxBoxAcc': 61.25, 'MaxBoxAccV2': 62.25})
    tables.print_paper_table('wsol', str(tmp_path), ['CUB', 'OpenImages', 'ToyBirds'])
    lines = [line.strip('|').split('|') for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
    head, _, *rows = [[cell.strip() for cell in line] for line in lines]
    assert head == ['set', 'method', 'map', 'backbone', 'score', 'paper', 'README', 'given', 'trained']
    ours = [row for row in rows if row[-1] != '-' or row[-2] != '-']
    assert [[*row[:1], *row[3:5], *row[-2:]] for row in ours] == [
        ['CUB', 'resnet50', 'MaxBoxAcc', '61.25', '-'],
        ['CUB', 'resnet50', 'MaxBoxAccV2', '62.25', '-'],
        ['OpenImages', 'resnet50', 'PxAP', '-', '60.25'],
    ]
    assert {row[3] for row in rows if row[0] == 'ToyBirds'} == {'vgg_tiny'}
    assert {row[3] for row in rows if row[0] == 'CUB'} == {'resnet50', 'vgg16', 'inception_v3'}
    assert {(row[0], row[4]) for row in rows} == {
        *((name, score) for name in ('CUB', 'ToyBirds') for score in ('MaxBoxAcc', 'MaxBoxAccV2')),
        ('OpenImages', 'PxAP'),
    }


ROWS = {'a': {'deletion': 0.25, 'win': 5.0}, 'b': {'deletion': 0.5, 'win': None}, 'c': {'deletion': 0.25, 'win': 7.0}}
CHOSEN = {name: METRICS[name] for name in ('deletion', 'win')}


def test_the_best_score_is_the_lowest_or_the_highest():
    assert best_score(ROWS, 'deletion', METRICS['deletion']) == 0.25
    assert best_score(ROWS, 'win', METRICS['win']) == 7
    assert best_score({'a': {'win': None}}, 'win', METRICS['win']) is None
    assert title_with_arrow('x', 'lower') == 'x ↓' and title_with_arrow('x', 'higher') == 'x ↑'


def test_attribution_scores_as_files():
    rows = list(csv.reader(io.StringIO(scores_csv(ROWS, CHOSEN))))
    assert rows == [['method', 'deletion', 'win'], ['a', '0.25', '5.0'], ['b', '0.5', ''], ['c', '0.25', '7.0']]
    assert scores_markdown(ROWS, CHOSEN, 'a note').splitlines() == [
        '| method | deletion AUC ↓ | mean win (%) ↑ |',
        '| --- | ---: | ---: |',
        '| a | **0.250** | 5.00 |',
        '| b | 0.500 | - |',
        '| c | **0.250** | **7.00** |',
        '',
        'a note',
    ]


def test_a_folders_table_of_scores_has_intervals_cue_localization_and_costs(tmp_path, capsys):
    """A column that is the same in every image has an interval of no width; of halves at 0 and 1 it is known."""
    names = ('deletion', 'average_drop')
    metrics = {name: {'title': METRICS[name].title, 'better': METRICS[name].better} for name in names}
    figures = {'a': (0.25, 50.0), 'b': (0.5, 50.0)}
    methods = {
        name: {'deletion': deletion, 'average_drop': drop, 'seconds': 0.5, 'forward_passes': 1, 'backward_passes': 0}
        for name, (deletion, drop) in figures.items()
    }
    found = {'arguments': {'iou_thresholds': [50]}, 'metrics': metrics, 'methods': methods, 'note': 'of birds'}
    cue = {'per_pair': {'mean': 30.0}, 'exact': {'mean': 20.0}}
    folder = write(tmp_path / 'scored', attribution_scores=found, cue_location_a=cue)
    arrays = {'ids': np.arange(40).astype(str), 'correct': np.ones(40, bool)}
    for name, (deletion, _) in figures.items():
        arrays |= {f'{name}/deletion': np.full(40, deletion), f'{name}/drop': np.arange(40) % 2.0}
    np.savez(os.path.join(folder, 'attribution_scores.npz'), **arrays)
    tables.print_summary([folder])  # the row of the map with cue localization
    assert '| a ' in capsys.readouterr().out
    print_score_tables([folder])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f'{folder}:' and lines[-1] == 'of birds'
    head, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if line.startswith('|')]
    titles = ['deletion AUC ↓', 'average drop (%) ↓', 'cue per pair (%) ↑', 'cue exact (%) ↑']
    assert head == ['method', *titles, 'seconds a map', 'forward passes', 'backward passes']
    assert [row[1] for row in rows] == ['0.250 [0.250, 0.250]', '0.500 [0.500, 0.500]']
    assert [row[3:] for row in rows] == [['30.00', '20.00', '0.500', '1.0', '0.0'], ['-', '-', '0.500', '1.0', '0.0']]
    low, high = map(float, re.fullmatch(r'50\.00 \[(.*), (.*)\]', rows[0][2]).groups())
    assert 30 <= low < 45 and 55 < high <= 70  # 1.96 of 50 / sqrt(40) is 15.5


def test_a_folder_of_scores_alone_has_no_row_of_dashes(tmp_path, capsys):
    folder = write(tmp_path / 'scored', attribution_scores={'metrics': {}, 'methods': {}, 'note': ''})
    tables.print_summary([folder])
    assert not capsys.readouterr().out
    print_score_tables([write(tmp_path / 'foreign', attribution_scores={'metrics': 3})])
    assert not capsys.readouterr().out


@pytest.mark.parametrize('words', [['{root}/CAM_CUB'], ['--table=classification', '{root}']])
@pytest.mark.parametrize('text, said', [('{"test_acc', 'cannot be read: '), ('[]', 'is not a JSON object')])
def test_a_damaged_result_is_one_line(tmp_path, words, text, said):
    folder = tmp_path / 'CAM_CUB'
    folder.mkdir()
    (folder / 'accuracy.json').write_text(text)
    code, _, err = commands.run('scripts/report.py', *(word.format(root=tmp_path) for word in words))
    [line] = err.splitlines()
    assert code == 2 and line.startswith(f'report.py: error: {folder}/accuracy.json {said}') and 'make it again' in line
