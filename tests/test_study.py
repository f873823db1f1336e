"""The study: which runs its script asks for, and how its page is filled from what they gave."""

import json
import os
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT
from test_intervals import experiment, table

SCRIPT = os.path.join(ROOT, 'scripts', 'study.sh')


@pytest.mark.parametrize(
    'words, said',
    [
        (['--heads', 'CAM LFI'], '--heads LFI: choose from CAM CALM-EM CAM-longer'),
        (['--networks=lite1'], '--networks lite1: choose from lite0 vgg_tiny lite0_fine resnet50'),
        (['--seeds', '0 x'], '--seeds 0 x: give whole numbers'),
        (['--sleep', '1'], "unknown option '--sleep'"),
        (['--designs'], '--designs needs a value'),
    ],
)
def test_the_script_refuses_in_one_line(words, said):
    done = subprocess.run(['bash', SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == '' and len(done.stderr.splitlines()) == 1 and said in done.stderr


def test_the_script_runs_each_step_once_as_a_published_command(tmp_path):
    """With a Python that writes down what it is asked, and makes the result that a step leaves."""
    checkout = tmp_path / 'checkout'
    (checkout / '.venv/bin').mkdir(parents=True)
    for name in ('scripts', 'configs'):
        (checkout / name).symlink_to(os.path.join(ROOT, name))
    python = checkout / '.venv/bin/python'
    python.write_text(f'''#!/bin/bash
echo "$*" >> {tmp_path}/asked
[ "$1" = main.py ] || exit 0
for word; do case $word in --experiment_name=*) folder="{tmp_path}/save/${{word#*=}}" ;; esac; done
mkdir -p "$folder" && touch "$folder/accuracy.json"
''')
    python.chmod(0o755)
    script = (checkout / 'study.sh').resolve()
    text = (
        open(SCRIPT)
        .read()
        .replace('source "$SCRIPTS/setup.sh" requirements.txt requirements-timm.txt', f'cd {checkout}')
    )
    script.write_text(text.replace('"$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"', f'"{checkout}/scripts"'))
    words = ['--networks', 'vgg_tiny', '--designs', 'single', '--seeds', '4', '--save_root', tmp_path / 'save']
    heads = ['--heads', 'CAM CAM-longer CALM-EM-ema random', '--steps', 'train cue blur']
    subprocess.run(['bash', script, *words, *heads], check=True, capture_output=True)
    asked = [line.split() for line in open(tmp_path / 'asked')]
    drawing, *steps = asked
    assert drawing[0] == 'scripts/make_toybirds.py' and '--design=single' in drawing
    blurs = [words for words in steps if words[-1].startswith('--blur')]
    steps = [words for words in steps if words not in blurs]
    assert [words[-1] for words in blurs] == ['--blur=4', '--blur=8', '--blur=16']
    assert all('--load_checkpoint=vgg_tiny-single/CAM-seed4' in words for words in blurs)
    assert [words[0] for words in steps] == ['main.py', 'eval_cue_location.py'] * 4
    assert all({'--dataset=ToyBirdsSingle', '--seed=4', '--resume=True'} <= {*words} for words in steps)
    cam, _, longer, _, ema, scored, random, _ = steps
    start = '--load_checkpoint=vgg_tiny-single/CAM-seed4'
    assert '--config=configs/CAM_ToyBirds.yaml' in cam and start not in cam + random
    assert {start, '--is_different_checkpoint=True', '--attribution_method=CAM'} <= {*longer}
    assert '--config=configs/CALM-EM_ToyBirds.yaml' in longer  # the rates and epochs of CALM
    assert {start, '--em_teacher=ema', '--experiment_name=vgg_tiny-single/CALM-EM-ema-seed4'} <= {*ema}
    assert {'--score_map_process=jointll', '--threshold_type=log', '--norm_type=clipping'} <= {*scored}
    subprocess.run(['bash', script, *words, '--heads', 'CAM', '--steps', 'train'], check=True, capture_output=True)
    assert sum(line.startswith('main.py') for line in open(tmp_path / 'asked')) == 4  # CAM is not trained again


PAGE = ''.join(
    f'# {name}\n<!-- study: {name} -->\nold\n<!-- end -->\n'
    for name in ('progress', 'results', 'differences', 'contrast', 'width')
)


def write_page(monkeypatch, tmp_path):
    """scripts/study_page.py in this process: the page's parts by name."""
    scripts = os.path.join(ROOT, 'scripts')
    monkeypatch.setattr(sys, 'argv', ['study_page.py', f'--save_root={tmp_path}/study', f'--page={tmp_path}/page.md'])
    monkeypatch.setattr(sys, 'path', [*sys.path, scripts])
    runpy.run_path(os.path.join(scripts, 'study_page.py'), run_name='__main__')
    text = (tmp_path / 'page.md').read_text()
    return {part.splitlines()[0]: part for part in text.split('# ')[1:]}


def test_the_page_has_the_figures_of_the_runs_and_says_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / 'page.md').write_text(PAGE)
    for seed in (0, 1):
        place = tmp_path / 'study/vgg_tiny-single'
        experiment(place / f'CAM-seed{seed}', shift=seed)
        experiment(place / f'CALM-EM-seed{seed}', map_name='jointll', method='CALM-EM', shift=5.0)
    parts = write_page(monkeypatch, tmp_path)
    assert 'old' not in ''.join(parts.values()) and parts['contrast'].count('Not run yet.') == 1
    rows = {row['head']: row for row in table(parts['results'])}
    assert rows['CAM']['cue per pair'] == '30.50 ± 0.71' and rows['CAM']['seeds'] == '2'  # 30 and 31
    assert rows['CALM-EM']['cue per pair'] == '35.00 ± 0.00' and rows['CALM-EM']['cue exact'] == '-'
    first, second = table(parts['differences'])
    assert (first['A, B'], first['seed'], second['seed']) == ('CAM, CALM-EM', '0', '1')
    assert first['cue per pair, mean'] == '**+5.00 [5.00, 5.00]**' and first['top-1'] == '+0.00 [0.00, 0.00]'
    assert second['cue per pair, mean'] == '**+4.00 [4.00, 4.00]**'
    assert '4 of 84 trainings are made' in parts['progress'] and 'Not run yet.' in parts['width']
    plain = json.loads((place / 'CAM-seed1/cue_location_vanilla.json').read_text())
    for blur, gain in (('16', 2), ('4', 1)):
        wider = {**plain, 'area': gain / 8, 'per_pair': {**plain['per_pair'], 'mean': 31 + gain}}
        (place / f'CAM-seed1/cue_location_vanilla_blur{blur}.json').write_text(json.dumps(wider))
    rows = table(write_page(monkeypatch, tmp_path)['width'])
    assert [(row['head'], row['blur (pixels)'], row['area (%)'], row['per pair']) for row in rows] == [
        ('CAM', '-', '-', '31.00'),
        ('CAM', '4', '12.50', '32.00'),
        ('CAM', '16', '25.00', '33.00'),
    ]
    for name, score in (('grad_cam', 20), ('grad_cam_contrast', 25)):
        found = {mode: {'mean': score + number} for number, mode in enumerate(('released', 'per_pair'))}
        (place / f'CALM-EM-seed0/cue_location_{name}.json').write_text(json.dumps(found))
    parts = write_page(monkeypatch, tmp_path)
    [row] = table(parts['contrast'])
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
    assert stop.value.code == 2 and 'the page has no line "<!-- study: progress -->"' in capsys.readouterr().err
    assert (tmp_path / 'page.md').read_text() == '# nothing\n'
