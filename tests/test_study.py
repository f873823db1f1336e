"""The studies: which steps they ask for, and how their pages and tables are made from the results."""

import csv
import json
import os
import re
import shutil
import signal
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from commands import run
from conftest import MINICUB
from PIL import Image
from test_intervals import experiment, table

from config import flags_of, get_configs
from data.metadata import read_boxes, read_image_ids, read_labels, read_sizes
from engine.command import Stopped, command
from studies import cub, cub_page, losses, masks, page, steps, toybirds, toybirds_page
from wsol.errors import UserError
from wsol.network import HEADS, Output


@pytest.mark.parametrize(
    'words, said',
    [
        (['--heads', 'CAM', 'LFI'], "--heads: invalid choice: 'LFI'"),
        (['--networks=lite1'], "--networks: invalid choice: 'lite1'"),
        (['--seeds', '0', 'x'], "--seeds: 'x' is not a number"),
        (['--sleep', '1'], 'unrecognized arguments: --sleep 1'),
        (['--designs'], '--designs: expected at least one argument'),
    ],
)
def test_a_study_refuses_in_one_line(words, said):
    code, out, err = run('studies.toybirds', *words)
    assert code == 2 and out == '' and len(err.splitlines()) == 1 and said in err


@pytest.mark.parametrize(
    'words, said',
    [
        (['--seeds', '0', '-1'], '--seeds: -1 is out of range: it must be at least 0'),
        (['--seeds', '4', '3', '2', '4', '1'], '--seeds 4 3 2 1: give at most 3'),
        (['--networks=vgg16', '--heads=CALM-ML'], 'no network has these steps for these heads'),
        (['--segmentations', 'nowhere'], '--segmentations nowhere is not a folder'),
        (['--segmentations', 'a/fine', 'b/fine'], '--segmentations b/fine: results named fine are there already'),
        (['--segmentations', 'a/224px'], 'results named 224px are there already'),
        (['--segmentations', 'subset/'], 'results named subset are there already'),
    ],
)
def test_the_cub_study_refuses_what_it_would_not_run(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    for folder in ('a/fine', 'b/fine', 'a/224px', 'subset'):
        os.makedirs(folder)
    with pytest.raises(SystemExit) as stop:
        cub.parse([*words, f'--data_root={MINICUB}/dataset', f'--metadata_root={MINICUB}/metadata', '--list'])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == '' and len(err.splitlines()) == 1 and said in err


def test_the_losses_are_refused_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(losses, 'measure', None)  # a call would fail
    roots = [f'--data_root={MINICUB}/dataset', f'--metadata_root={MINICUB}/metadata', f'--save_root={tmp_path}']
    for words, said in (([], 'no checkpoint lite0/CAM-seed0'), (['--steps=0'], '--steps: 0 is out of range')):
        monkeypatch.setattr(sys, 'argv', ['losses', *roots, *words])
        with pytest.raises(SystemExit) as stop:
            command(losses.main)
        assert stop.value.code == 2 and said in capsys.readouterr().err


def test_a_seed_or_network_given_twice_is_planned_once():
    words = ['--networks', 'lite0', 'lite0', '--seeds', '1', '1', '--heads', 'CAM', '--steps', 'train']
    roots = f'--data_root={MINICUB}/dataset', f'--metadata_root={MINICUB}/metadata'
    assert paths(plan_of(cub, *words, *roots)) == ['lite0/CAM-seed1/accuracy.json']


def test_a_control_keeps_its_segmentations(tmp_path):
    """A second folder of the same name would be scored against the first one's masks."""
    for name in ('a', 'b'):
        (tmp_path / name / 'fine').mkdir(parents=True)
    target = str(tmp_path / 'segmentations')
    for _ in range(2):
        masks.link(tmp_path / 'a' / 'fine', target)
    with pytest.raises(UserError, match='segmentations leads to .*a/fine, not to .*b/fine'):
        masks.link(tmp_path / 'b' / 'fine', target)
    assert os.path.realpath(target) == os.path.realpath(tmp_path / 'a' / 'fine')


def plan_of(study, *words):
    return list(study.plan(study.parse([str(word) for word in words])))


def paths(planned):
    """The results of all steps, below the save root."""
    return [path for step in planned for path in steps.results_of(step, '')]


def test_the_toybirds_study_trains_calm_from_cam_and_scores_each_head(tmp_path):
    words = '--networks vgg_tiny --designs single --seeds 4 --heads CAM CAM-longer CALM-EM-ema random'.split()
    steps = plan_of(toybirds, *words, '--steps', 'train', 'cue', 'blur', '--save_root', tmp_path)
    [blurs] = [step for step in steps if '--blur' in step.words]  # CALM-EM is not asked for
    assert blurs.words[-4:] == ('--blur', '4', '8', '16') and blurs.experiment == 'vgg_tiny-single/CAM-seed4'
    assert blurs.results == tuple(f'cue_location_vanilla_blur{one}.json' for one in (4, 8, 16))
    steps.remove(blurs)
    assert [step.words[0] for step in steps] == ['main.py', 'eval_cue_location.py'] * 4
    assert all({'--dataset=ToyBirdsSingle', '--seed=4'} <= {*step.words} for step in steps)
    cam, _, longer, _, ema, scored, random, _ = (step.words for step in steps)
    start = '--load_checkpoint=vgg_tiny-single/CAM-seed4'
    assert '--config=configs/CAM_ToyBirds.yaml' in cam and start not in cam + random
    assert {start, '--is_different_checkpoint=True', '--attribution_method=CAM', '--epochs=8'} <= {*longer}
    assert {start, '--em_teacher=ema', '--attribution_method=CALM-EM'} <= {*ema}
    assert {'--score_map_process=jointll', '--threshold_type=log', '--norm_type=clipping'} <= {*scored}
    assert '--load_checkpoint=vgg_tiny-single/CALM-EM-ema-seed4' in scored


def test_the_whole_toybirds_study_is_that_of_its_page():
    steps = plan_of(toybirds)
    assert sum(step.results == ('accuracy.json',) for step in steps) == 84
    assert len({*paths(steps)}) == len(paths(steps))
    lite0 = [step for step in steps if step.experiment == 'lite0-combined/CAM-seed0']
    kinds = ['accuracy', 'cue_location', 'pixel_perturb', 'wsol', *['cue_location'] * 9]
    assert [re.search('/([a-z]+(_location|_perturb)?)[^/]*$', path)[1] for path in paths(lite0)] == kinds
    first = lite0[0].words
    assert {'--epochs=4', '--lr_decay_frequency=4', '--batch_size=16', '--channels_last=True'} <= {*first}


def cub_study(tmp_path, *words):
    for name in ('dataset', 'metadata'):
        (tmp_path / name / 'CUB').mkdir(parents=True, exist_ok=True)
    roots = ('--data_root', tmp_path / 'dataset', '--metadata_root', tmp_path / 'metadata')
    return plan_of(cub, *words, *roots, '--save_root', tmp_path / 'save')


def test_the_study_of_cub_has_the_most_valuable_steps_first(tmp_path):
    steps = cub_study(tmp_path, '--networks', 'lite0')
    assert len({*paths(steps)}) == len(paths(steps))
    trainings = [step for step in steps if step.words[0] == 'main.py' and '--is_train=False' not in step.words]
    heads = ('CAM', 'CALM-EM', 'CALM-ML', 'CAM-longer')
    named = [step.experiment for step in trainings]
    assert named[:4] == [f'lite0/{head}-seed0' for head in heads]
    assert {*named[4:10]} == {
        f'lite0/{head}-seed{seed}' for head in ('CAM', 'CAM-longer', 'CALM-EM') for seed in (1, 2)
    }
    assert named[10:] == [f'lite0/{head}-onestep-seed0' for head in ('CALM-EM', 'CALM-ML', 'CAM')]
    em = trainings[1].words
    assert {'--load_checkpoint=lite0/CAM-seed0', '--is_different_checkpoint=True', '--epochs=4', '--compile=True'} <= {
        *em
    }
    assert not any(word.startswith('--load_checkpoint') for step in trainings[10:] for word in step.words)
    scored = [step for step in steps if step.results == ('cue_location_jointll.json',)]
    assert [step.experiment for step in scored[:3]] == [
        f'lite0{size}/CALM-EM-seed0' for size in ('', '-224px', '-320px')
    ]
    assert all('--load_checkpoint=lite0/CALM-EM-seed0' in step.words for step in scored[:3])
    assert '--crop_size=320' in scored[2].words and '--crop_size=160' in scored[0].words
    assert not any('--compile=True' in step.words for step in steps if step.words[0] != 'main.py')
    boxes = next(step for step in steps if 'boxmasks' in step.experiment)
    assert f'--data_root={tmp_path}/save/dataset_boxmasks' in boxes.words
    erased = [step for step in steps if step.words[0] == 'eval_pixel_perturb.py']
    assert [step.experiment for step in erased] == ['lite0/CAM-seed0', 'lite0/CALM-EM-seed0']
    longer = 'lite0-224px/CAM-longer-seed0'
    [blurs] = [step.words[-4:] for step in steps if step.experiment == longer and '--blur' in step.words]
    assert blurs == ('--blur', '8', '16', '32')  # half a location of 16 pixels, one, two
    *_, noisy = [step for step in steps if step.experiment == 'lite0-subset/CAM-seed0']
    assert '--score_map_process=smooth_grad,var_grad' in noisy.words  # which share their passes
    assert noisy.results == ('cue_location_smooth_grad.json', 'cue_location_var_grad.json')


def test_every_step_gives_its_command_only_flags_that_it_uses(tmp_path):
    steps = plan_of(toybirds, '--networks', *toybirds.NETWORKS)
    steps += cub_study(tmp_path) + cub_study(tmp_path, '--recipe', 'paper')
    given = {
        (step.words[0], word.partition('=')[0][2:]) for step in steps for word in step.words if word.startswith('--')
    }
    used = {command: flags_of(command.removesuffix('.py')) for command, _ in given}
    unused = [one for one in given if one[0].removesuffix('.py') not in used[one[0]][one[1]].commands]
    assert not unused
    trained = [step.words for step in steps if step.words[0] == 'main.py' and 'lite0/CAM-seed0' in step.experiment]
    assert len(trained) == 1 and {'--resize_size=182', '--crop_size=160'} <= {*trained[0]}


def test_the_study_of_cub_refuses_a_network_of_another_recipe_and_a_head_of_another_study(tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        cub_study(tmp_path, '--recipe', 'paper', '--networks', 'lite0')
    assert '--networks lite0: --recipe=paper has resnet50-paper, vgg16-paper' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='2'):
        cub_study(tmp_path, '--heads', 'CALM-EM-ema')  # a head of the ToyBirds study alone
    said = capsys.readouterr().err
    assert "--heads: invalid choice: 'CALM-EM-ema'" in said and 'CAM-longer' in said


def test_the_papers_recipe_is_the_published_one(tmp_path):
    steps = cub_study(tmp_path, '--recipe', 'paper', '--steps', 'train')
    assert len(steps) == 42  # two networks; six heads with three seeds, three of a low rate with one
    assert steps[0].experiment == 'resnet50-paper/CAM-seed0'  # the network of the published commands first
    for step in steps:
        args = get_configs('', list(step.words[1:]))
        head = re.fullmatch(r'(?:resnet50|vgg16)-paper/(\S+)-seed\d', step.experiment)[1]
        low = head.endswith('-low-lr')
        from_cam = head.removesuffix('-low-lr') in ('CALM-EM', 'CALM-ML', 'CAM-longer')
        assert (args.epochs, args.lr_decay_frequency) == ((15, 11) if from_cam else (40, 30))
        assert bool(args.load_checkpoint) == args.is_different_checkpoint == from_cam
        assert (args.batch_size, args.lr) == (64, 0.001 if low else 0.01)
        assert (
            args.architecture == step.experiment.split('-paper')[0]
            and args.use_bn
            and args.large_feature_map
            and args.pretrained
        )


def test_steps_of_many_passes_have_the_precision_of_the_training(tmp_path):
    for recipe, flags in (('paper', {'amp': 'bf16', 'batch_size': 64}), ('cpu', {'amp': 'off', 'batch_size': 4})):
        found = cub_study(tmp_path, '--recipe', recipe, '--heads', 'CAM', '--steps', 'gradients', 'erase')
        many = [step for step in found if 'grad' in step.results[0] or step.words[0] == 'eval_pixel_perturb.py']
        assert len(many) == len(found) - len(cub.RECIPES[recipe])  # all but the map of the head
        for step in many:
            args = get_configs('', list(step.words[1:]))
            assert args.amp == flags['amp']
            if 'grad' in step.results[0]:
                assert args.batch_size == flags['batch_size']


def test_finished_steps_are_listed_and_not_repeated(tmp_path, monkeypatch, capsys):
    words = ('-c', 'import sys, os; open(os.environ["ASKED"], "a").write(sys.argv[-2] + "\\n")')
    results = ('accuracy.json', 'other.json')
    steps_ = [steps.Step('a/CAM-seed0', results, words), steps.Step('a/CAM-seed1', results, words)]
    for made in ('a/CAM-seed0/accuracy.json', 'a/CAM-seed0/other.json', 'a/CAM-seed1/accuracy.json'):
        (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / made).write_text('{}')
    monkeypatch.setenv('ASKED', str(tmp_path / 'asked'))
    steps.run(steps_, str(tmp_path), only_list=True)
    listed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in listed] == [
        ['finished', 'a/CAM-seed0/accuracy.json'],
        ['finished', 'a/CAM-seed0/other.json'],
        ['finished', 'a/CAM-seed1/accuracy.json'],
        ['to', 'do', 'a/CAM-seed1/other.json'],
    ]
    assert not (tmp_path / 'asked').exists()
    steps.run(steps_, str(tmp_path))
    assert (tmp_path / 'asked').read_text().splitlines() == ['--experiment_name=a/CAM-seed1']
    failing = steps.Step('b/CAM-seed0', ('accuracy.json',), ('-c', 'raise SystemExit(2)'))
    with pytest.raises(UserError, match='b/CAM-seed0/accuracy.json ended with exit code 2'):
        steps.run([failing], str(tmp_path))


def test_a_study_that_is_asked_to_stop_passes_it_on(tmp_path):
    code = '; '.join([
        'import os, signal, sys',
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))',
        'os.kill(os.getppid(), signal.SIGTERM)',
        'signal.pause()',
    ])  # fmt: skip
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match='b/CAM-seed0/accuracy.json: run the same command again'):
        steps.run([steps.Step('b/CAM-seed0', ('accuracy.json',), ('-c', code))], str(tmp_path))
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_box_masks_are_white_inside_the_boxes_alone(tmp_path):
    metadata = tmp_path / 'test'
    metadata.mkdir()
    (metadata / 'image_ids.txt').write_text('a/1.jpg\n')
    (metadata / 'image_sizes.txt').write_text('a/1.jpg,7,5\n')
    (metadata / 'localization.txt').write_text('a/1.jpg,2,1,4,3\n')
    masks.draw_boxes(str(metadata), str(tmp_path / 'masks'))
    expected = np.zeros((5, 7), int)
    expected[1:4, 2:5] = 255
    assert (np.array(Image.open(tmp_path / 'masks/a/1.png')) == expected).all()


def test_the_subset_has_two_test_images_of_each_class_with_a_pair(tmp_path, monkeypatch):
    monkeypatch.setattr(cub, 'COUNTS', (1, 2))  # class 6 differs from every other class in at least three parts
    shutil.copytree(f'{MINICUB}/metadata', tmp_path / 'metadata')
    for path in (tmp_path / 'metadata/CUB/test').iterdir():  # as Windows writes them
        path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b'\n', b'\r\n'))
    args = Namespace(metadata_root=f'{tmp_path}/metadata', data_root=f'{MINICUB}/dataset', save_root=tmp_path)
    cub.write_subset(args)
    whole, subset = f'{MINICUB}/metadata/CUB/test', str(tmp_path / 'metadata_subset/CUB/test')
    images = read_image_ids(whole)  # three of each of eight classes, class by class
    kept = [one for number, one in enumerate(images) if number % 3 < 2 and number // 3 != 6]
    assert read_image_ids(subset) == kept
    for read in (read_labels, read_sizes, read_boxes):
        everything = read(whole)
        assert read(subset) == {one: everything[one] for one in kept}


@pytest.mark.parametrize('p', [1e-2, 1e-10, 1e-13])
def test_the_distance_of_the_losses_is_that_of_the_number_beside_p(p):
    """EM's gradient is ML's times p / (p + 1e-10), if p(z|x) is not small; a dead location has no gradient of its h."""
    f = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    f[:, 1] = float(np.log(p / (1 - p)))  # at each location
    h = torch.tensor([[[[1.0, 2.0], [0.0, 3.0]]]], dtype=torch.float64)
    ml, em = losses.gradients(Output(f, h, HEADS['CALM-EM']), torch.tensor([1]))
    assert ml.shape == (12,) and ml[8:].tolist() == pytest.approx([-1 / 6, -1 / 6, 0, -1 / 6])
    assert float((em - ml).norm() / ml.norm()) == pytest.approx(1e-10 / (p + 1e-10), rel=1e-4)


def test_a_figure_of_some_seeds_alone_says_of_how_many():
    """Erasing is done for the first seed alone."""
    assert page.over_known([0.5, None]) == '0.50 (1 of 2 seeds)' and page.over_known([None, None]) == '-'
    assert page.over_known([1, None, 3]) == '2.00 ± 1.41 (2 of 3 seeds)' and page.over_known([1, 3]) == '2.00 ± 1.41'


PAGE = ''.join(f'# {name}\n<!-- study: {name} -->\nold\n<!-- end -->\n' for name in ('progress', 'results'))


def test_the_figures_of_a_map_need_no_interval_and_no_other_map(tmp_path, monkeypatch):
    monkeypatch.setattr('report.tables.known_intervals', None)  # a call would fail
    experiment(tmp_path, shift=1.0)
    own, other = page.figures(str(tmp_path), 'vanilla'), page.figures(str(tmp_path), 'jointll')
    assert own['cue per pair'] == 31 and own['R_10'] is not None
    assert other == {**dict.fromkeys(own), 'top-1': own['top-1']} and own['top-1'] is not None


def write_page(monkeypatch, tmp_path):
    """studies/toybirds_page.py in this process: the page's sections by name."""
    monkeypatch.setattr(sys, 'argv', ['toybirds_page', f'--save_root={tmp_path}/study', f'--page={tmp_path}/page.md'])
    command(toybirds_page.main)
    text = (tmp_path / 'page.md').read_text()
    return {part.splitlines()[0]: part for part in text.split('# ')[1:]}


def csv_rows(tmp_path, name):
    """The rows of a table beside the page, as dicts."""
    with open(tmp_path / f'tables/study_{name}.csv', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_the_page_has_the_figures_of_the_runs_and_says_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / 'page.md').write_text(PAGE)
    for seed in (0, 1):
        place = tmp_path / 'study/vgg_tiny-single'
        experiment(place / f'CAM-seed{seed}', shift=seed)
        experiment(place / f'CALM-EM-seed{seed}', map_name='jointll', method='CALM-EM', shift=5.0)
    parts = write_page(monkeypatch, tmp_path)
    assert 'old' not in ''.join(parts.values()) and not (tmp_path / 'tables/study_contrast.csv').exists()
    assert '4 of 84 trainings are finished' in parts['progress']
    found = {row['head']: row['vgg_tiny-single'] for row in table(parts['results'])}
    assert found['CAM'].startswith('30.50 ± 0.71 / ') and found['CALM-EM'] == '35.00 ± 0.00 / -'  # CAM: 30 and 31
    rows = {row['head']: row for row in csv_rows(tmp_path, 'results')}
    assert rows['CAM']['cue per pair'] == '30.50 ± 0.71' and rows['CAM']['seeds'] == '2'
    assert rows['CALM-EM']['setting'] == 'vgg_tiny-single' and rows['CALM-EM']['cue exact'] == '-'
    first, second = csv_rows(tmp_path, 'differences')
    assert (first['A, B'], first['seed'], second['seed']) == ('CAM, CALM-EM', '0', '1')
    assert first['cue per pair, mean'] == '+5.00 [5.00, 5.00]' and first['top-1'] == '+0.00 [0.00, 0.00]'
    assert second['cue per pair, mean'] == '+4.00 [4.00, 4.00]'


def test_the_tables_of_blurred_maps_and_of_contrasts(tmp_path, monkeypatch):
    (tmp_path / 'page.md').write_text(PAGE)
    place = tmp_path / 'study/vgg_tiny-single'
    experiment(place / 'CAM-seed1', shift=1)
    experiment(place / 'CALM-EM-seed0', map_name='jointll', method='CALM-EM', shift=5.0)
    plain = json.loads((place / 'CAM-seed1/cue_location_vanilla.json').read_text())
    for blur, gain in (('16', 2), ('4', 1)):
        wider = {**plain, 'area': gain / 8, 'per_pair': {**plain['per_pair'], 'mean': 31 + gain}}
        (place / f'CAM-seed1/cue_location_vanilla_blur{blur}.json').write_text(json.dumps(wider))
    for name, score in (('grad_cam', 20), ('grad_cam_contrast', 25)):
        found = {mode: {'mean': score + number} for number, mode in enumerate(('released', 'per_pair'))}
        (place / f'CALM-EM-seed0/cue_location_{name}.json').write_text(json.dumps(found))
    parts = write_page(monkeypatch, tmp_path)
    rows = csv_rows(tmp_path, 'width')
    assert [(row['head'], row['blur (pixels)'], row['area (%)'], row['per pair']) for row in rows] == [
        ('CAM', '-', '-', '31.00'),
        ('CAM', '4', '12.50', '32.00'),
        ('CAM', '16', '25.00', '33.00'),
    ]
    [row] = csv_rows(tmp_path, 'contrast')
    assert (row['setting'], row['head'], row['seed'], row['map']) == ('vgg_tiny-single', 'CALM-EM', '0', 'grad_cam')
    assert (row['released, maps'], row['released, score'], row['per pair, score']) == ('20.00', '25.00', '26.00')
    assert row['exact, maps'] == row['exact, score'] == '-'
    again = write_page(monkeypatch, tmp_path)
    assert again == parts and (tmp_path / 'study_cue.png').stat().st_size > 5000


def test_a_page_without_its_marks_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / 'study').mkdir()
    (tmp_path / 'page.md').write_text('# nothing\n')
    with pytest.raises(SystemExit) as stop:
        write_page(monkeypatch, tmp_path)
    assert stop.value.code == 2 and 'the page has no line "<!-- study: results -->"' in capsys.readouterr().err
    assert (tmp_path / 'page.md').read_text() == '# nothing\n'


def test_the_page_of_cub_has_our_figures_beside_the_papers(tmp_path, monkeypatch):
    marks = ''.join(f'# {name}\n<!-- study: {name} -->\nold\n<!-- end -->\n' for name in cub_page.SECTIONS)
    (tmp_path / 'page.md').write_text(marks)
    root = tmp_path / 'study'
    for setting, shift in (('lite0', 0.0), ('lite0-224px', 4.0), ('lite0-boxmasks', -5.0)):
        experiment(root / setting / 'CAM-seed0', shift=shift)
        experiment(root / setting / 'CALM-EM-seed0', map_name='jointll', method='CALM-EM', shift=shift + 1)
    experiment(root / 'lite0/CALM-EM-seed1', map_name='jointll', method='CALM-EM', shift=3.0)
    experiment(root / 'lite0-subset/CAM-seed0', map_name='var_grad', shift=-8.0)
    plain = json.loads((root / 'lite0/CAM-seed0/cue_location_vanilla.json').read_text())
    wider = {**plain, 'per_pair': {**plain['per_pair'], 'mean': 33.5}}
    (root / 'lite0/CAM-seed0/cue_location_vanilla_blur16.json').write_text(json.dumps(wider))
    experiment(root / 'lite0-unet/CAM-seed0', shift=-2.0)  # --segmentations of a folder of any name
    (root / 'losses.json').write_text('{"CAM": {"p": [0.1, 0.2, 0.4], "distance": [1e-7, 3e-7]}}')
    log = [{'arguments': {}}, *({'epoch': n, 'loss': 1, 'train_accuracy': 40 + n, 'lr': [0.1**n, 0.1]} for n in (2, 3))]
    (root / 'lite0/CAM-seed0/log.jsonl').write_text('\n'.join(map(json.dumps, log)))
    monkeypatch.setattr(sys, 'argv', ['cub_page', f'--save_root={root}', f'--page={tmp_path}/page.md'])
    command(cub_page.main)
    text = (tmp_path / 'page.md').read_text()
    parts = {part.splitlines()[0]: part for part in text.split('# ')[1:]}
    assert 'old' not in text
    paper, coarse, fine = table(parts['summary'])
    assert [*paper.values()] == ['paper, 28 x 28 maps', '29.6', '27.3', '34.3', '-', '-', '-']
    assert (coarse['CAM, per pair'], coarse['CALM-ML, per pair'], fine['CAM, per pair']) == ('30.0', '-', '34.0')
    assert coarse['CALM-EM, per pair'] == '32.0 ± 1.4'  # of 31 and 33
    coarse, fine = (table(part) for part in parts['answer'].split('lite0, 224 px, 14 x 14 maps'))
    assert [row['method'] for row in coarse] == [row['method'] for row in fine] and len(coarse) == 7
    rows = {row['method']: row for row in coarse}
    assert rows['CAM']['paper: 1 / 2 / 3 parts / mean'] == '24.10 / 28.30 / 32.20 / 29.60'
    assert rows['CAM']['ours, per pair [95 %]'].startswith('15.00 / 60.00 / - / 30.00 [')
    assert rows['Variance Gradient']['ours, per pair [95 %]'].startswith('7.00 / 52.00 / - / 22.00 [')
    assert rows['CALM-ML']['ours, per pair [95 %]'] == '-'
    assert fine[4]['ours, per pair [95 %]'].startswith('19.00 / 64.00 / - / 34.00 [')
    [em] = [row for row in table(parts['sizes']) if row['head'] == 'CALM-EM' and '160 px' in row['network']]
    assert (em['seeds'], em['per pair, mean']) == ('2', '32.00 ± 1.41')
    [trained] = table(parts['training'])  # the run with a log
    assert [*trained.values()][:7] == ['lite0', 'CAM', 'ImageNet', '0.01', '2', '1', '43.00']  # of the last epoch
    assert trained['cue per pair'] == '30.00'
    for part in parts['differences'].split('**lite0, ')[1:]:
        [compared] = table(part)
        assert (compared['A, B'], compared['seed']) == ('CAM, CALM-EM', '0')
        assert compared['cue per pair, mean'] == '**+1.00 [1.00, 1.00]**'
    [blurred] = table(parts['width'])
    assert (blurred['per pair, as it is'], blurred['per pair, one'], blurred['per pair, two']) == (
        '30.00',
        '33.50',
        '-',
    )
    own, box, unet = [row for row in table(parts['masks']) if row['head'] == 'CAM']
    assert (own['masks'], own['per pair']) == ("the data set's", '15.00 / 60.00 / - / 30.00')
    assert (box['masks'], box['per pair']) == ('boxmasks', '10.00 / 55.00 / - / 25.00')
    assert (unet['network'], unet['masks'], unet['per pair']) == ('lite0', 'unet', '13.00 / 58.00 / - / 28.00')
    [row] = table(parts['losses'])
    assert [*row.values()] == ['CAM', '2', '3', '2.0e-01', '1.0e-01', '2.0e-07', '3.0e-07']
    [lite0, vgg16, *paper] = table(parts['progress'])
    assert lite0['trained'] == 'CAM-seed0, CALM-EM-seed0, CALM-EM-seed1' and lite0['results finished'].endswith(
        ' of 110'
    )
    assert vgg16['results finished'].startswith('0 of ') and [row['trained'] for row in paper] == ['-', '-']
    assert (tmp_path / 'cub_cue.png').stat().st_size > 5000


def test_a_mask_control_belongs_to_one_network(tmp_path):
    for setting in ('vgg16', 'vgg16-boxmasks', 'vgg16-subset', 'vgg16-paper', 'vgg16-paper-boxmasks', 'lite0-224px'):
        (tmp_path / setting).mkdir()
    found = {name: cub_page.mask_settings(tmp_path, name) for name in ('lite0', 'vgg16', 'vgg16-paper')}
    assert found == {'lite0': [], 'vgg16': ['vgg16-boxmasks'], 'vgg16-paper': ['vgg16-paper-boxmasks']}
