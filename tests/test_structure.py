"""The structure of the code: imports point one way, the library stands alone, nothing happens on import."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT

FLOORS = (  # a file imports from its own floor or below
    {'data_folders', 'data_loaders', 'data_truth', 'config', 'wsol', 'util'},
    {'engine'},
    {'report'},
    {'main', 'app', 'inference', 'eval_attribution', 'eval_cue_location', 'eval_pixel_perturb', 'eval_wsol'},
    {'studies'},  # which run commands and read their results
)
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


SOURCES = [f'{name}.py' for names in FLOORS for name in sorted(names - {'engine', 'report', 'wsol', 'studies'})]
SOURCES += sorted(python_files('engine', 'report', 'wsol', 'studies'))


@pytest.mark.parametrize('path', SOURCES)
def test_imports_point_down_and_never_to_an_entry_script(path):
    own = path.split(os.sep)[0].removesuffix('.py')
    for name, line in imported(path):
        top = name.split('.')[0]
        if top not in FLOOR_OF or top == own:
            continue
        allowed = FLOOR_OF[top] < FLOOR_OF[own] or FLOOR_OF[top] == FLOOR_OF[own] == 0
        assert allowed, f'{path}:{line} imports {name}, which stands above it'
        assert own != 'wsol', f'{path}:{line} imports {name}: the library imports nothing of the project but itself'


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


def test_starting_needs_neither_matplotlib_nor_scipy():
    """Which take a second to import; torch itself does without them."""
    code = 'import sys, main, eval_attribution; sys.exit(bool({"matplotlib", "scipy"} & {*sys.modules}))'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
