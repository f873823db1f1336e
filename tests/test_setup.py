"""scripts/setup.sh: what makes it install, and with which versions. pip is a script that writes down its arguments."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

FILES = {
    'constraints.txt': 'numpy==2.4.6\n',
    'requirements.txt': 'numpy\n',
    'requirements-timm.txt': '-r requirements.txt\ntimm\n',
    'requirements-test.txt': '# the tests\n-r requirements-timm.txt\npytest\n',
    'requirements-app.txt': 'gradio\n',
}
PYTHON = """\
#!/usr/bin/env bash
case "$*" in
    '-m pip install '*) echo "$*" >> pip.log; for word in $REFUSED; do [[ "$*" != *"$word"* ]] || exit 1; done ;;
    *) exec "$REAL" "$@" ;;
esac
"""
INSTALL = '-m pip install --quiet --disable-pip-version-check '
LISTED = '-r requirements.txt -r requirements-test.txt'


@pytest.fixture
def checkout(tmp_path):
    """A checkout with the requirements above and a Python whose pip installs nothing."""
    (tmp_path / 'scripts').mkdir()
    for name in ('setup.sh', 'lib.sh'):
        shutil.copy(os.path.join(ROOT, 'scripts', name), tmp_path / 'scripts')
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    python = tmp_path / '.venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def set_up(checkout, *arguments, refused=''):
    """(exit code, standard error, what pip was asked for) of setup.sh, sourced from another folder."""
    arguments = arguments or ('requirements.txt', 'requirements-test.txt')
    done = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', 'source "$0" "$@"', str(checkout / 'scripts' / 'setup.sh'), *arguments],
        capture_output=True,
        text=True,
        cwd='/',
        env={**os.environ, 'REAL': sys.executable, 'REFUSED': refused},
    )
    log = checkout / 'pip.log'
    asked = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    assert done.stdout == ''
    assert all(line.startswith(INSTALL) for line in asked)
    return done.returncode, done.stderr, [line.removeprefix(INSTALL) for line in asked]


def test_installs_once_with_the_exact_versions(checkout):
    code, said, asked = set_up(checkout)
    assert code == 0 and asked == [f'-c constraints.txt {LISTED}'] and len(said.splitlines()) == 1
    assert set_up(checkout) == (0, '', [])


@pytest.mark.parametrize(
    'name', ['constraints.txt', 'requirements.txt', 'requirements-timm.txt', 'requirements-test.txt']
)
def test_a_change_in_any_file_installs_again(checkout, name):
    """requirements-timm.txt is named by requirements-test.txt alone."""
    set_up(checkout)
    with open(checkout / name, 'a') as file:
        file.write('tqdm')  # without a final newline
    assert set_up(checkout)[2] == [f'-c constraints.txt {LISTED}']
    assert set_up(checkout)[2] == []


def test_other_files_do_not_matter(checkout):
    set_up(checkout)
    (checkout / 'requirements-app.txt').write_text('gradio<6\n')
    assert set_up(checkout)[2] == []
    assert set_up(checkout, 'requirements.txt')[2] == []  # installed with the others
    (checkout / 'requirements-timm.txt').write_text('timm<2\n')
    assert set_up(checkout, 'requirements.txt')[2] == []


def test_versions_that_cannot_be_had_are_said_and_left_open(checkout):
    code, said, asked = set_up(checkout, refused='constraints.txt')
    assert code == 0 and asked == [f'-c constraints.txt {LISTED}', LISTED]
    assert [('constraints.txt' in line) for line in said.splitlines()] == [False, True]
    assert set_up(checkout) == (0, '', [])


def test_nothing_to_be_had_is_an_error_and_tried_again(checkout):
    code, said, asked = set_up(checkout, refused='install')
    assert code == 2 and len(asked) == 2 and 'could not install' in said.splitlines()[-1]
    assert set_up(checkout)[2] == [f'-c constraints.txt {LISTED}']


def test_packages_without_their_own_requirements(checkout):
    flags = ('requirements.txt', '--no-deps', 'grad-cam')
    wanted = ['-c constraints.txt -r requirements.txt', '-c constraints.txt --no-deps grad-cam']
    assert set_up(checkout, *flags)[2] == wanted
    assert set_up(checkout, *flags)[2] == []
    assert set_up(checkout, 'requirements.txt', '--no-deps', 'ttach')[2][1] == '-c constraints.txt --no-deps ttach'


def test_the_exact_versions_are_ones_that_the_requirements_allow():
    """Every requirement has its version, and setup.sh would not have to leave one out."""
    names = ('requirements.txt', 'requirements-timm.txt', 'requirements-test.txt', 'constraints.txt')
    lines = {name: open(os.path.join(ROOT, name)).read().splitlines() for name in names}
    exact = dict(line.split('==') for line in lines.pop('constraints.txt') if not line.startswith('#'))
    exact = {name.lower(): version for name, version in exact.items()}
    assert not any('+' in version for version in exact.values())
    wanted = [line for rows in lines.values() for line in rows if line and not line.startswith(('#', '-'))]
    for requirement in map(Requirement, wanted):
        if requirement.name == 'ruff':
            continue  # pinned where it stands
        assert exact[requirement.name.lower()] in requirement.specifier, requirement


@pytest.mark.parametrize(
    'words, code, said',
    [
        (['--help'], 0, 'bash scripts/quickstart.sh --picture'),
        (['-h'], 0, 'bash scripts/quickstart.sh [NAME]'),
        (['--pictures'], 2, "quickstart.sh: error: unknown option '--pictures'"),
        (['--full', '--pictures'], 2, "quickstart.sh: error: unknown option '--pictures'"),
        (['full'], 2, "quickstart.sh: error: 'full' would be the NAME of a run: give --full"),
        (['--picture', 'mine'], 2, 'quickstart.sh: error: mine: --picture takes no NAME'),
        (['one', 'two', 'three'], 2, 'quickstart.sh: error: two three: give at most one NAME'),
        (['old'], 2, 'quickstart.sh: error: save/old is a full run, not a quick one: give another NAME'),
        (['--full', 'new'], 2, 'quickstart.sh: error: save/new is a quick run, not a full one: give another NAME'),
    ],
)
def test_the_quick_start_answers_before_it_does_anything(checkout, words, code, said):
    shutil.copy(os.path.join(ROOT, 'scripts', 'quickstart.sh'), checkout / 'scripts')
    for folder in ('old/CAM', 'new/CAM', 'new/dataset'):
        (checkout / 'save' / folder).mkdir(parents=True)
    done = subprocess.run(['bash', str(checkout / 'scripts' / 'quickstart.sh'), *words], capture_output=True, text=True)
    shown, silent = (done.stdout, done.stderr) if code == 0 else (done.stderr, done.stdout)
    assert done.returncode == code and said in shown and silent == '' and 'set -euo' not in shown
    assert code == 0 or len(shown.splitlines()) == 1
    assert not (checkout / 'pip.log').exists() and sorted(os.listdir(checkout / 'save')) == ['new', 'old']


STEPS = """\
#!/usr/bin/env bash
# Writes down each command, and the result that the quick start looks for; a command that $FAIL names fails.
case "$*" in
    -c*) exec "$REAL" "$@" ;;
    '-m pip'*) exit 0 ;;
esac
echo "$OMP_NUM_THREADS $*" >> steps.log
[ -z "$FAIL" ] || [[ "$*" != *"$FAIL"* ]] || exit 1
folder=save/$(grep -o 'experiment_name=[^ ]*' <<< "$*" | cut -d= -f2)
map=$(grep -o 'score_map_process=[^ ]*' <<< "$*" | cut -d= -f2)
mkdir -p "$folder"
case $1 in
    main.py) touch "$folder/accuracy.json" ;;
    eval_cue_location.py) touch "$folder/cue_location_$map.json" ;;
    eval_pixel_perturb.py) touch "$folder/pixel_perturb_$map.json" ;;
    scripts/make_toybirds.py) mkdir -p save/quickstart/dataset ;;
esac
"""


def quick_start(checkout, *words, fail=''):
    """(exit code, its commands without Python, standard output) of the quick start with the Python of STEPS."""
    for name in ('quickstart.sh', 'reproduce/rows.sh'):
        target = checkout / 'scripts' / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(os.path.join(ROOT, 'scripts', name), target)
    (checkout / '.venv' / 'bin' / 'python').write_text(STEPS)
    nproc = checkout / 'bin' / 'nproc'
    nproc.parent.mkdir(exist_ok=True)
    nproc.write_text('#!/bin/sh\necho 2\n')
    nproc.chmod(0o755)
    environment = {**os.environ, 'REAL': sys.executable, 'FAIL': fail, 'PATH': f'{nproc.parent}:{os.environ["PATH"]}'}
    environment.pop('OMP_NUM_THREADS', None)
    command = ['bash', str(checkout / 'scripts' / 'quickstart.sh'), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    log = checkout / 'steps.log'
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return done.returncode, lines, done.stdout


def test_the_quick_start_trains_the_papers_kind_of_network_and_scores_it_once(checkout):
    code, lines, told = quick_start(checkout)
    assert code == 0 and len(told.splitlines()) == 3 and 'vgg_tiny from scratch (--full)' in told
    first, cam, *beside = lines[:-2]
    maps, report = sorted(lines[-2:])  # beside each other
    assert first.startswith(' scripts/make_toybirds.py --data_root=save/quickstart/dataset') and ' --train=20 ' in first
    assert cam.startswith(' main.py --config=configs/CAM_ToyBirds_tf_efficientnet_lite0.yaml')
    assert all(line.startswith('1 ') for line in beside)  # on one core each
    assert sorted(line.split()[1] for line in beside) == sorted(
        ['main.py'] * 2 + ['eval_cue_location.py', 'eval_pixel_perturb.py'] * 3
    )
    for method in ('CALM-ML', 'CALM-EM'):
        [trained] = [line for line in beside if f'quickstart/{method} ' in line and 'main.py' in line]
        assert '--load_checkpoint=quickstart/CAM --is_different_checkpoint=True' in trained
        assert '--epochs=1' in trained and '--data_root=save/quickstart/dataset' in trained
    assert 'draw_maps.py' in maps and 'report.py save/quickstart/CAM' in report
    again = quick_start(checkout)[1]
    assert [again[0], *sorted(again[1:])] == [first, maps, report]


def test_the_picture_that_the_quick_start_names_is_there():
    with open(os.path.join(ROOT, 'scripts', 'quickstart.sh')) as file:
        named = re.findall(r'docs/[\w/]+\.(?:jpg|png)', file.read())
    assert named and all(os.path.isfile(os.path.join(ROOT, one)) for one in named)


def test_the_full_quick_start_is_another_network_in_another_folder(checkout):
    code, lines, told = quick_start(checkout, '--full')
    assert code == 0 and told == ''
    assert all(line.startswith(' ') for line in lines)  # one after the other, on all cores
    assert lines[0] == ' scripts/make_toybirds.py'  # all birds, in dataset/
    trained = [line for line in lines if 'main.py' in line]
    assert [line.split()[1] for line in trained] == [
        f'--config=configs/{method}_ToyBirds.yaml' for method in ('CAM', 'CALM-ML', 'CALM-EM')
    ]
    assert all('quickstart-full/' in line and '--epochs' not in line for line in trained)


def test_the_quick_start_ends_with_a_step_that_fails_and_goes_on_from_it(checkout):
    code, lines, _ = quick_start(checkout, fail='main.py --config=configs/CALM-ML')
    assert code == 1 and not any('draw_maps.py' in line for line in lines)
    assert any('CALM-EM' in line and 'eval_pixel_perturb.py' in line for line in lines)  # beside it, and finished
    code, lines, _ = quick_start(checkout)
    assert code == 0 and sum('main.py' in line for line in lines) == 1 and 'CALM-ML' in lines[1]
