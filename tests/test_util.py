"""Checkpoints are found where users put them and written whole or not at all; seeds and progress lines."""

import os

import numpy as np
import pytest
import torch
from munch import Munch

import util


def test_a_checkpoint_is_found_as_file_as_folder_below_save_root_and_among_the_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = 'last_checkpoint.pth.tar'
    for folder in ('plain', 'save/run', 'checkpoints/CALM-EM_CUB'):
        os.makedirs(folder)
        open(os.path.join(folder, name), 'w').close()
    for given, found in (
        ('plain/', f'plain/{name}'),
        (f'plain/{name}', f'plain/{name}'),
        ('run', f'save/run/{name}'),
        ('CALM-EM_CUB', f'checkpoints/CALM-EM_CUB/{name}'),
    ):
        assert os.path.samefile(util.find_checkpoint(given, 'save'), found)
    with pytest.raises(FileNotFoundError, match='no checkpoint nothing'):
        util.find_checkpoint('nothing', 'save')


def test_files_saved_with_an_optimizer_and_without_arguments_are_read(tmp_path):
    """The released form: no args; the optimizer's state beside the weights."""
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / 'last_checkpoint.pth.tar'
    torch.save(
        {
            'architecture': 'resnet50',
            'epoch': 40,
            'state_dict': layer.state_dict(),
            'optimizer': optimizer.state_dict(),
        },
        path,
        _use_new_zipfile_serialization=False,
    )  # the file form of that time
    record = util.read_checkpoint(path, 'resnet50', 'CALM-EM', True)
    assert torch.equal(record['state_dict']['weight'], layer.weight) and record['epoch'] == 40
    with pytest.raises(ValueError, match='give --architecture=resnet50'):
        util.read_checkpoint(path, 'vgg16', 'CALM-EM', True)


class Planted:
    """Unpickling it would call a function."""

    def __reduce__(self):
        return os.system, ('touch planted',)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {}, 'args': Planted()}, 'bad.pth.tar')
    with pytest.raises(ValueError, match='more than tensors'):
        util.read_checkpoint('bad.pth.tar', 'resnet50', 'CAM', True)
    assert not os.path.exists('planted')


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'result.json'
    util.write_json(str(path), {'a': 1})
    before = path.read_bytes()
    with pytest.raises(ValueError):
        util.write_json(str(path), {'a': float('nan')})

    def half(file):
        file.write(b'half')
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        util.atomically(str(path), half)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ['result.json']


def test_checkpoints_round_trip(tmp_path):
    layer = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    args = Munch(architecture='resnet18', attribution_method='CAM', large_feature_map=False, lr=0.5)
    util.save_checkpoint(str(tmp_path / 'a'), layer, optimizer, 3, args)
    record = util.read_checkpoint(tmp_path / 'a', 'resnet18', 'CAM', False)
    assert (
        record['epoch'] == 3 and record['args'] == dict(args) and torch.equal(record['state_dict']['bias'], layer.bias)
    )
    with pytest.raises(ValueError, match='--attribution_method=CAM'):
        util.read_checkpoint(tmp_path / 'a', 'resnet18', 'CALM-ML', False)
    with pytest.raises(ValueError, match='--large_feature_map=False'):
        util.read_checkpoint(tmp_path / 'a', 'resnet18', 'CAM', True)
    assert util.read_checkpoint(tmp_path / 'a', 'resnet18', 'CALM-ML', True, start=True)['epoch'] == 3
    with pytest.raises(ValueError, match='is of architecture resnet18'):
        util.read_checkpoint(tmp_path / 'a', 'resnet50', 'CAM', False, start=True)


def test_a_drawn_seed_is_told_and_a_given_one_repeats():
    assert util.set_seed(7) == 7
    first = torch.rand(1), np.random.rand()
    util.set_seed(7)
    assert (torch.rand(1), np.random.rand()) == first
    assert util.set_seed(None) != util.set_seed(None)


def test_progress_without_a_terminal_is_plain_lines(capsys):
    assert list(util.progress(iter(range(25)), 25, 'work')) == list(range(25))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith('work: 3/25, ') and lines[-1].startswith('work: 25/25, ') and len(lines) <= 11
