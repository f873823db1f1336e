"""The structure of the code: imports point one way, the library stands alone, nothing happens on import."""

import ast
import glob
import os
import platform
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from engine import before_torch

ABOVE = ('studies', 'benchmarks')  # which run commands, time them and read their results
LIBRARY = 'wsol'


def documented_order():
    """The floors that docs/extending.md names, the lowest first, sets of names; a file imports from lower ones."""
    with open(os.path.join(ROOT, 'docs', 'extending.md')) as file:
        order = re.search(r'^commands → (.+)\.$', file.read(), re.MULTILINE)[1]
    return [{re.split('[./]', name)[0] for name in re.findall('`(.+?)`', floor)} for floor in order.split('→')[::-1]]


FLOORS = documented_order()
BELOW = set().union(*FLOORS)
COMMANDS = {name[:-3] for name in os.listdir(ROOT) if name.endswith('.py')} - BELOW
FLOORS += [COMMANDS, {*ABOVE}]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def python_files(*folders):
    for folder in folders:
        for place, _, names in os.walk(os.path.join(ROOT, folder)):
            yield from (os.path.relpath(os.path.join(place, name), ROOT) for name in names if name.endswith('.py'))


def imported(path):
    """(name of a module, the line) of all that a file imports, relative imports made absolute."""
    with open(os.path.join(ROOT, path)) as file:
        tree = ast.parse(file.read())
    package = path[:-3].split(os.sep)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else []
            module = '.'.join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f'{module}.{alias.name}', node.lineno


FOLDERS = sorted(name for name in FLOOR_OF if os.path.isdir(os.path.join(ROOT, name)))
SOURCES = [f'{name}.py' for names in FLOORS for name in sorted(names - {*FOLDERS})] + sorted(python_files(*FOLDERS))


def test_every_source_has_a_floor():
    """The documented order leaves out no folder of the project."""
    found = {path.split(os.sep)[0] for path in glob.glob('*/*.py', root_dir=ROOT)}
    assert found - {'tests', 'scripts'} == {*FOLDERS}


@pytest.mark.parametrize('path', SOURCES)
def test_imports_point_down_and_never_to_an_entry_script(path):
    own = path.split(os.sep)[0].removesuffix('.py')
    for name, line in imported(path):
        top = name.split('.')[0]
        assert top != 'scripts', f'{path}:{line} imports {name}: scripts are run and never imported'
        if top not in FLOOR_OF or top == own:
            continue
        allowed = FLOOR_OF[top] < FLOOR_OF[own] or top in BELOW and FLOOR_OF[top] == FLOOR_OF[own]
        assert allowed, f'{path}:{line} imports {name}, which stands above it'
        assert own != LIBRARY, f'{path}:{line} imports {name}: the library imports nothing of the project but itself'


def modules_of(name, known):
    """The file that an imported name stands for, among the known ones: a module, or a name of its package."""
    for candidate in (name, name.rpartition('.')[0]):
        if candidate in known:
            return candidate
    return None


def test_no_circle_of_imports():
    """A file that imports another, at its top level or below, is never imported by it, by whatever detour."""
    known = {}
    for path in SOURCES:
        known[path[:-3].replace(os.sep, '.').removesuffix('.__init__')] = path
    graph = {}
    for module, path in known.items():
        found = {modules_of(name, known) for name, _ in imported(path)} - {None, module}
        # `from . import sibling` in a package is the sibling's import, not the package's
        graph[module] = {other for other in found if not module.startswith(f'{other}.')}
    state = {}

    def visit(module, way):
        if state.get(module) == 'done':
            return
        assert module not in way, 'a circle: ' + ' -> '.join([*way[way.index(module) :], module])
        for other in sorted(graph[module]):
            visit(other, [*way, module])
        state[module] = 'done'

    for module in graph:
        visit(module, [])


@pytest.fixture(scope='module')
def start():
    """How a Python ended that imported two commands, its OpenMP said to show its settings."""
    environment = {name: value for name, value in os.environ.items() if name != 'OMP_WAIT_POLICY'}
    code = 'import sys, main, eval_attribution; sys.exit(bool({"matplotlib", "scipy"} & {*sys.modules}))'
    environment['OMP_DISPLAY_ENV'] = 'true'
    return subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_starting_needs_neither_matplotlib_nor_scipy(start):
    """Which take a second to import; torch itself does without them."""
    assert start.returncode == 0


@pytest.mark.slow
def test_waiting_threads_do_not_spin(start):
    """PyTorch reads it once, as it is loaded."""
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in start.stderr


def test_every_command_says_first_how_threads_wait():
    """Before it loads PyTorch; the libraries say nothing, and the user's own setting wins."""
    commands = [name for name in os.listdir(ROOT) if name.endswith('.py')]
    commands += [path for path in python_files('scripts') if path.count(os.sep) == 1] + ['benchmarks/run.py']
    for command in commands:
        with open(os.path.join(ROOT, command)) as file:
            text = file.read()
        first = [name for name, line in sorted(imported(command), key=lambda one: one[1])]
        first = [name for name in first if name.split('.')[0] not in sys.stdlib_module_names]
        if "__name__ == '__main__'" in text:
            assert first[0].split('.')[0] == 'checkout' or first[0] == 'engine.before_torch', command
    code = "import os, engine.before_torch; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {**os.environ, 'OMP_WAIT_POLICY': 'ACTIVE'}
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == 'ACTIVE\n'


def test_a_user_without_a_name_gets_one():
    """As in `docker run --user 1234`, where `import torchvision` alone fails."""
    code = """import getpass, pwd
def unknown(number):
    raise KeyError(f'getpwuid(): uid not found: {number}')
pwd.getpwuid = unknown
import engine.before_torch
print(getpass.getuser())"""
    bare = {name: value for name, value in os.environ.items() if name not in ('LOGNAME', 'USER', 'LNAME', 'USERNAME')}
    for own, name in (({}, f'user-{os.getuid()}'), ({'USER': 'ann'}, 'ann')):
        done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=bare | own, capture_output=True, text=True)
        assert done.stdout == f'{name}\n', done.stderr


def test_standard_output_takes_every_text():
    """File names as their bytes; what the locale's encoding does not have as '?'."""
    code = r"import engine.before_torch; print('\udcff\xfc\u2026')"
    for encoding, shown in (
        ('utf-8', b'\xff' + '\xfc\u2026'.encode()),
        ('latin-1', b'\xff\xfc?'),
        ('ascii', b'\xff??'),
    ):
        own = {**os.environ, 'PYTHONIOENCODING': f'{encoding}:strict'}
        done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=own, capture_output=True)
        assert done.stdout == shown + b'\n', done.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the memory of freed arrays is kept with glibc only')
def test_memory_of_freed_arrays_is_kept():
    """So that the next ones need no new pages; with a user's own settings it goes back to the system."""
    code = """import resource, engine.before_torch, numpy
def resident():
    return int(open('/proc/self/statm').read().split()[1])
before = resident()
numpy.ones(2**23)
print((resident() - before) * resource.getpagesize() / 2**26)"""
    fresh = {name: value for name, value in os.environ.items() if name not in before_torch.OWN}
    kept = []
    for own in ({}, {'MALLOC_MMAP_THRESHOLD_': str(2**17)}):
        done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=fresh | own, capture_output=True, text=True)
        kept.append(float(done.stdout))
    assert kept[0] > 0.9 and kept[1] < 0.1
