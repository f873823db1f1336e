"""Heads that are given away: scripts/export_head.py, and packaged/NAME wherever a checkpoint or classifier is named."""

import fnmatch
import hashlib
import json
import os
import sys
import tomllib

import commands
import pytest
import torch
from conftest import ROOT
from PIL import Image

import eval_attribution
import util
from engine.experiments import load_experiment
from wsol import build_model, load_classifier, trained
from wsol.errors import UserError

BIRDS = ['001.Wren', '002.Robin', '003.Blue_Tit']
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def given_away(folder, model):
    """(exit code, what is said, the file) of the export of a checkpoint of `model`."""
    (folder / 'data' / 'CUB').mkdir(parents=True)
    (folder / 'data' / 'CUB' / 'classes.txt').write_text(''.join(f'{n} {one}\n' for n, one in enumerate(BIRDS, 1)))
    told = {
        'dataset': 'CUB',
        'data_root': str(folder / 'data'),
        'metadata_root': str(folder / 'nothing'),
        'crop_size': 64,
        'architecture': 'vgg_tiny',
        'attribution_method': 'CALM-EM',
        'use_bn': False,
        'large_feature_map': True,
        'preprocessing': {'mean': (0.5,) * 3, 'std': (0.5,) * 3, 'interpolation': 'bicubic', 'crop_share': 0.875},
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    util.save_checkpoint(str(folder / 'last_checkpoint.pth.tar'), model, optimizer, 3, told)
    file = folder / 'head.pth.tar'
    code, out, err = commands.run('scripts/export_head.py', str(folder), str(file))
    return code, out + err, file


@pytest.fixture(scope='module')
def head(tmp_path_factory):
    """(a random network, the file of its export, the line that says so)."""
    torch.manual_seed(0)
    model = build_model('vgg_tiny', 'CALM-EM', 3, large_feature_map=True).eval()
    code, said, file = given_away(tmp_path_factory.mktemp('head'), model)
    assert code == 0, said
    return model, file, said


def packaged_as(monkeypatch, file, sha256=None):
    sha256 = sha256 or hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(trained.TRAINED, 'tiny', trained.Trained(str(file), sha256, 'a test', 'none'))


def test_the_export_is_half_as_large_and_holds_no_path_of_the_machine(head):
    model, file, said = head
    assert hashlib.sha256(file.read_bytes()).hexdigest() in said
    record = torch.load(file, weights_only=True)
    assert {*record['args']} == {
        *('dataset', 'crop_size', 'architecture', 'attribution_method', 'use_bn', 'large_feature_map', 'preprocessing')
    }
    for name, value in model.state_dict().items():
        wanted = value.half() if value.is_floating_point() else value
        assert record['state_dict'][name].dtype == wanted.dtype and torch.equal(record['state_dict'][name], wanted)


def test_a_value_that_half_precision_does_not_hold_stays(tmp_path):
    model = build_model('vgg_tiny', 'CALM-EM', 3, large_feature_map=True)
    with torch.no_grad():
        model.conv_last.bias[1] = 1e6
    code, said, file = given_away(tmp_path, model)
    state = torch.load(file, weights_only=True)['state_dict']
    assert state['conv_last.bias'][1] == 1e6 and state['conv_last.weight'].dtype == torch.float16, (code, said)


def test_a_packaged_head_is_a_classifier_with_its_own_classes(head, monkeypatch):
    model, file, _ = head
    packaged_as(monkeypatch, file)
    found = load_classifier('packaged/tiny')
    assert found.class_names == BIRDS and found.image_size == 64 and found.preprocessing.crop_share == 0.875
    assert found.attribution_method == 'CALM-EM' and not found.training
    with torch.no_grad():
        torch.testing.assert_close(found(IMAGES).probs, model(IMAGES).probs, rtol=0.01, atol=0.001)


def test_a_packaged_head_is_a_checkpoint_of_the_commands(head, monkeypatch):
    model, file, _ = head
    packaged_as(monkeypatch, file)
    experiment = load_experiment('packaged/tiny')
    assert experiment.class_names == BIRDS and experiment.arguments.crop_size == 64
    with torch.no_grad():
        torch.testing.assert_close(experiment.model(IMAGES).probs, model(IMAGES).probs, rtol=0.01, atol=0.001)


@pytest.mark.parametrize('flag', ['load_checkpoint', 'classifier'])
def test_labels_of_own_photographs_are_the_names_of_a_packaged_head(flag, head, tmp_path, monkeypatch):
    packaged_as(monkeypatch, head[1])
    (tmp_path / 'photos').mkdir()
    for name, colour in (('a.png', 'red'), ('b.png', 'blue')):
        Image.new('RGB', (64, 64), colour).save(tmp_path / 'photos' / name)
    command = ['eval_attribution.py', f'--{flag}=packaged/tiny', f'--images={tmp_path}/photos', '--methods=jointll']
    command += ['--metrics=deletion', '--curve_steps=2', '--seed=1', '--workers=0', f'--save_root={tmp_path}']
    for labels in (['Robin', '003.Blue_Tit'], ['1', '2']):  # the same by name and by number
        (tmp_path / 'labels.csv').write_text('file,class\na.png,{}\nb.png,{}\n'.format(*labels))
        name = f'--experiment_name={labels[0]}'
        monkeypatch.setattr(sys, 'argv', [*command, f'--labels={tmp_path}/labels.csv', name])
        eval_attribution.main()
    named, numbered = (json.loads((tmp_path / one / 'attribution_scores.json').read_text()) for one in ('Robin', '1'))
    assert named['correct'] == numbered['correct']
    assert named['methods']['jointll']['deletion'] == numbered['methods']['jointll']['deletion']


def test_unknown_and_damaged_heads_are_told(head, monkeypatch):
    _, file, _ = head
    packaged_as(monkeypatch, file)
    with pytest.raises(UserError, match="unknown packaged head 'packaged/tine': did you mean packaged/tiny?"):
        load_classifier('packaged/tine')
    packaged_as(monkeypatch, file, '0' * 64)
    with pytest.raises(UserError, match='is not the packaged file .* instead of 0000000000000000'):
        load_experiment('packaged/tiny')


@pytest.mark.parametrize('name', trained.TRAINED)
def test_the_heads_that_come_along_are_small_and_whole(name):
    path = trained.file_of(trained.PREFIX + name)
    assert os.path.getsize(path) <= 8e6 and os.path.dirname(path).startswith(ROOT)
    with open(os.path.join(ROOT, 'pyproject.toml'), 'rb') as file:
        carried = tomllib.load(file)['tool']['setuptools']['package-data']['wsol']
    assert any(fnmatch.fnmatch(os.path.relpath(path, os.path.join(ROOT, 'wsol')), one) for one in carried)
    record = torch.load(path, weights_only=True)
    assert len(record['class_names']) == len(record['state_dict']['conv_last.weight'])
    assert trained.TRAINED[name].licence and trained.TRAINED[name].origin
