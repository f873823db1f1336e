"""scripts/setup.sh: what makes it install, and with which versions. pip is a script that writes down its arguments."""

import os
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
    assert set_up(checkout, 'requirements.txt')[2] == ['-c constraints.txt -r requirements.txt']
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
        (['--picture', 'mine'], 2, 'quickstart.sh: error: mine: give one word'),
        (['one', 'two', 'three'], 2, 'quickstart.sh: error: two three: give one word'),
    ],
)
def test_the_quick_start_answers_before_it_does_anything(checkout, words, code, said):
    shutil.copy(os.path.join(ROOT, 'scripts', 'quickstart.sh'), checkout / 'scripts')
    done = subprocess.run(['bash', str(checkout / 'scripts' / 'quickstart.sh'), *words], capture_output=True, text=True)
    shown, silent = (done.stdout, done.stderr) if code == 0 else (done.stderr, done.stdout)
    assert done.returncode == code and said in shown and silent == '' and 'set -euo' not in shown
    assert not (checkout / 'pip.log').exists() and not (checkout / 'save').exists()
