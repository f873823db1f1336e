"""Shared by all tests: the checkout on the path, where reference data lies, the seed.

PyTorch is imported within the fixtures: the process that only hands out the tests does without.
"""

import contextlib
import json
import os
import sys

# The suite runs in as many processes as there are cores: one thread each, also in the commands that tests start.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np
import pytest

# What the shell of a job, a proxy or a terminal would change.
for name in [*os.environ]:
    if name.startswith(('SLURM_', 'CALM_', 'TORCHELASTIC_')) or name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'COLUMNS'):
        del os.environ[name]
os.environ['no_proxy'] = os.environ['NO_PROXY'] = '127.0.0.1,localhost'

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Compiled modules are kept: hundreds of processes would compile the checkout and the tests anew.
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)
sys.dont_write_bytecode = False
sys.path.insert(0, ROOT)
sys.path.insert(0, os.path.join(ROOT, 'tests', 'golden'))

GOLDEN = os.path.join(ROOT, 'tests', 'golden')
MINICUB = os.path.join(ROOT, 'tests', 'minicub')
SHARED = os.path.join(os.path.dirname(ROOT), 'shared')


@pytest.fixture(params=['cpu', 'cuda'])
def device(request):
    """The CPU, and the accelerator where there is one."""
    import torch

    if request.param == 'cuda' and not torch.cuda.is_available():
        pytest.skip('this machine has no CUDA device')
    return torch.device('cuda', 0) if request.param == 'cuda' else torch.device('cpu')


@pytest.fixture
def accelerator():
    """The CUDA device, or a skip."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip('this machine has no CUDA device')
    return torch.device('cuda', 0)


@pytest.fixture
def exact(monkeypatch):
    """float32 is float32, and the same algorithm is taken every time."""
    import torch

    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def real_cub(tmp_path):
    """The true CUB-200-2011 annotation files in the folder layout of the loaders, or a skip."""
    source = os.path.join(SHARED, 'cub_annotations')
    if not os.path.isdir(source):
        pytest.skip('the true CUB-200-2011 annotation files are not beside this checkout')
    folder = tmp_path / 'CUB'
    (folder / 'attributes').mkdir(parents=True)
    for name in (
        'images.txt',
        'image_class_labels.txt',
        'train_test_split.txt',
        'bounding_boxes.txt',
        'classes.txt',
        'parts',
    ):
        os.symlink(os.path.join(source, name), folder / name)
    os.symlink(os.path.join(source, 'attributes.txt'), folder / 'attributes' / 'attributes.txt')
    name = 'class_attribute_labels_continuous.txt'
    os.symlink(os.path.join(source, 'attributes', name), folder / 'attributes' / name)
    return str(folder)


@pytest.fixture(scope='session')
def golden_maps():
    """{'CUB' or 'OpenImages': {image id: map in [0, 1] [224, 224]}}."""
    with np.load(os.path.join(GOLDEN, 'wsol_maps.npz')) as stored:
        maps = {key: stored[key] / 255 for key in stored.files}
    return {
        name: {key[len(name) + 1 :]: one for key, one in maps.items() if key.startswith(name)}
        for name in ('CUB', 'OpenImages')
    }


@pytest.fixture(scope='session')
def golden():
    """The localization figures of those maps: {data set, choices: percent}."""
    with open(os.path.join(GOLDEN, 'wsol.json')) as file:
        return json.load(file)


@pytest.fixture
def picture():
    """A photograph of plain colours whose corners differ: uint8 [24, 32, 3]."""
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:12, :16] = (230, 20, 30)
    pixels[:12, 16:] = (20, 200, 40)
    pixels[12:, :16] = (30, 40, 220)
    pixels[12:, 16:] = (240, 240, 240)
    return pixels


@pytest.fixture
def closed():
    """A function (path) -> context in which this process, even root's, may not read that file or enter that folder."""

    @contextlib.contextmanager
    def close(path):
        mode = os.stat(path).st_mode
        os.chmod(path, 0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # permissions do not bind root
        try:
            yield
        finally:
            os.seteuid(user)
            os.chmod(path, mode)

    return close


@pytest.fixture(autouse=True)
def fixed_seed():
    import torch

    torch.manual_seed(0)


# Files that wait for other programs, or have one long test: first, so that no process is left alone with them.
LONG = (
    'test_benchmarks',
    'test_slurm',
    'test_reproduce',
    'test_recipes',
    'test_commands',
    'test_resuming',
    'test_models',
)


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes seconds of a core; pytest -m "not slow" leaves it out')
    for place in ('cpu', 'cuda'):
        config.addinivalue_line('markers', f'on_{place}: a case that runs on this device')


def pytest_collection_modifyitems(items):
    """The files of LONG before all others; the cases of each device have its mark."""
    names = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: names.get(item.path.stem, len(LONG)))
    for item in items:
        place = item.callspec.params.get('device') if hasattr(item, 'callspec') else None
        place = 'cuda' if 'accelerator' in item.fixturenames else place
        if place in ('cpu', 'cuda'):
            item.add_marker(f'on_{place}')
