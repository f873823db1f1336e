"""Checkpoints are found where users put them and written whole or not at all; seeds and progress lines."""

import argparse
import errno
import json
import os
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from munch import Munch

import util
from data.metadata import read_image_ids
from engine.resume.locks import Lock
from wsol.errors import UserError
from wsol.photographs import read_photograph
from wsol.weights import read_record


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
    for folder in ('run', 'save/CALM-EM_CUB'):  # where there are several: as given, then below save_root
        os.makedirs(folder)
        open(os.path.join(folder, name), 'w').close()
    assert os.path.samefile(util.find_checkpoint('run', 'save'), f'run/{name}')
    assert os.path.samefile(util.find_checkpoint('CALM-EM_CUB', 'save'), f'save/CALM-EM_CUB/{name}')
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
    with pytest.raises(ValueError, match='not only tensors'):
        util.read_checkpoint('bad.pth.tar', 'resnet50', 'CAM', True)
    assert not os.path.exists('planted')


@pytest.mark.parametrize(
    'value, names', [(np.float64(3), 'numpy._core.multiarray.scalar, numpy.dtype'), (Planted, r'test_util.Planted')]
)
def test_foreign_objects_are_named_with_what_to_do(value, names, tmp_path):
    path = tmp_path / 'own.pth'
    torch.save({'state_dict': {'a': torch.zeros(2)}, 'accuracy': value}, path)
    with pytest.raises(ValueError, match=f'own.pth contains {names}, not only tensors .* torch.save') as error:
        read_record(path)
    assert not {*'\n\x1b'} & {*str(error.value)}


@pytest.mark.parametrize('name', ['model', 'model_state_dict', 'state_dict'])
def test_trainings_of_other_code_bases_are_checkpoints(name, tmp_path):
    """torchvision's has its flags beside the weights, as an argparse.Namespace."""
    record = {name: {'a': torch.ones(2)}, 'epoch': 3, 'args': argparse.Namespace(lr=0.1)}
    torch.save(record, tmp_path / 'own.pth')
    found = read_record(tmp_path / 'own.pth')
    assert (
        found['state_dict']['a'].tolist() == [1, 1]
        and found['epoch'] == 3
        and found.keys() - record.keys() <= {'state_dict'}
    )
    assert util.trained_with(found) == {} and argparse.Namespace not in torch.serialization.get_safe_globals()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'result.json'
    util.write_json(str(path), {'a': 1})
    before = path.read_bytes()
    assert os.listdir(tmp_path) == ['result.json'] and json.loads(before) == {'a': 1}
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
    with pytest.raises(ValueError, match='another map size: give --large_feature_map=False'):
        util.read_checkpoint(tmp_path / 'a', 'resnet18', 'CAM', True)
    with pytest.raises(ValueError, match='--attribution_method=CAM'):
        util.read_checkpoint(tmp_path / 'a', 'resnet18', 'CALM-ML', False)
    with pytest.raises(ValueError, match='--large_feature_map=False'):
        util.read_checkpoint(tmp_path / 'a', 'resnet18', 'CAM', True)
    assert util.read_checkpoint(tmp_path / 'a', 'resnet18', 'CALM-ML', True, start=True)['epoch'] == 3
    with pytest.raises(ValueError, match='is of architecture resnet18'):
        util.read_checkpoint(tmp_path / 'a', 'resnet50', 'CAM', False, start=True)


def test_a_drawn_seed_is_told_and_a_given_one_repeats():
    for draw in (random.random, np.random.rand, lambda: torch.rand(1).item()):
        assert util.set_seed(7) == 7
        first = draw()
        assert draw() != first
        util.set_seed(7)
        assert draw() == first
        util.set_seed(8)
        assert draw() != first
    assert util.set_seed(None) != util.set_seed(None)
    assert util.set_seed(2**40) == 2**40 and 0 <= util.draw_seed() < 2**31


def test_progress_without_a_terminal_is_plain_lines(capsys):
    assert list(util.progress(iter(range(25)), 25, 'work')) == list(range(25))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(',')[0] for line in lines] == [f'work: {n}/25' for n in (3, 5, 8, 10, 13, 15, 18, 20, 23, 25)]
    assert list(util.progress('ab', 2, 'work', shown=False)) == ['a', 'b'] and capsys.readouterr().err == ''


def test_progress_counts_images(capsys, monkeypatch):
    """By a clock on which each of four batches of 8 images takes two seconds; within SLURM a line a minute."""
    now = iter(range(0, 1000, 2))
    monkeypatch.setattr(util, 'time', SimpleNamespace(monotonic=lambda: next(now)))
    list(util.progress('abcd', 4, 'work', 8))
    assert capsys.readouterr().err.splitlines()[1:] == [
        'work: 2/4, 4 s, 4 images/s, 4 s left',
        'work: 3/4, 6 s, 4 images/s, 2 s left',
        'work: 4/4, 8 s, 4 images/s, 0 s left',
    ]
    monkeypatch.setenv('SLURM_JOB_ID', '1')
    list(util.progress(range(100), 100, 'work'))
    counts = [line.split(',')[0] for line in capsys.readouterr().err.splitlines()]
    assert counts == ['work: 30/100', 'work: 60/100', 'work: 90/100', 'work: 100/100']


def test_a_log_begins_with_what_was_asked_and_goes_on_where_it_was_left(tmp_path, capsys):
    path = str(tmp_path / 'new' / 'log.jsonl')
    log = util.Log(path, {'arguments': {'lr': 1}})
    kept = log.size()
    log.report('said', epoch=1, lost='x' * 9999)
    assert log.size() > kept + 9999 and capsys.readouterr().out == 'said\n'
    again = util.Log(path, {'arguments': {'lr': 2}}, kept)
    again.write(epoch=2)
    with open(path) as file:
        records = [json.loads(line) for line in file]
    assert [record['arguments'] for record in records[:2]] == [{'lr': 1}, {'lr': 2}] and records[2] == {'epoch': 2}
    assert len(records) == 3
    util.Log(path, {}).write(epoch=3)
    with open(path) as file:
        assert len(file.readlines()) == 2  # a new file
    silent = util.Log(None, {})
    silent.report('nothing', epoch=1)
    assert silent.size() == 0 and capsys.readouterr().out == ''


@pytest.mark.parametrize('left, kept', [(None, 0), (0, 0), (-1, 1), (-30, 1), (500, 2)])
def test_a_log_that_was_cut_short_keeps_its_whole_lines(tmp_path, capsys, left, kept):
    """left: None: the file is gone; -n: n bytes are missing; 500: it is longer than the log was."""
    path = tmp_path / 'log.jsonl'
    log = util.Log(str(path), {'head': 1})
    log.write(epoch=1, text='x' * 50)
    size = log.size()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text((''.join(lines) + ' ' * 500)[: size + left] if left else '')
    if left is None:
        path.unlink()
    util.Log(str(path), {'head': 2}, size).write(epoch=2)
    assert path.read_text().splitlines(keepends=True) == [*lines[:kept], '{"head": 2}\n', '{"epoch": 2}\n']
    said = f'{path} is gone or cut short: records of the earlier run are missing from it\n'
    assert capsys.readouterr().err == ('' if left == 500 else said)


def test_a_folder_is_claimed_once(tmp_path):
    util.check_claim(str(tmp_path), ['a', 'b'], False)
    (tmp_path / 'b').touch()
    with pytest.raises(FileExistsError, match='already holds b: give another --experiment_name, or --override_cache'):
        util.check_claim(str(tmp_path), ['a', 'b'], False)
    util.check_claim(str(tmp_path), ['a', 'b'], True)


@pytest.mark.parametrize('name', ['', 'x', 'x/y'])
@pytest.mark.parametrize('kind', ['a file', 'a link to nothing', 'a link to itself'])
def test_what_is_in_the_way_of_a_folder_is_named(tmp_path, kind, name):
    place = tmp_path / 'save'
    if kind == 'a file':
        place.touch()
    else:
        place.symlink_to(place if 'itself' in kind else tmp_path / 'nowhere')
    said = 'a link to nothing' if 'link' in kind else kind
    for make in (util.make_folder, taken):
        with pytest.raises(UserError, match=f'cannot make the folder {place / name}: {place} is {said}; give another'):
            make(place / name)
    with pytest.raises(UserError, match=f'cannot write to the folder {place / name}: {place} is {said}; give another'):
        util.check_folder(place / name)
    assert os.listdir(tmp_path) == ['save']


def test_a_folder_that_may_not_be_written_is_told_before_the_work(tmp_path, closed):
    util.check_folder(tmp_path)
    util.check_folder(tmp_path / 'new' / 'folder')
    with closed(tmp_path), pytest.raises(UserError, match='cannot write to the folder .*/new: .* is read-only for you'):
        util.check_folder(tmp_path / 'new')
    assert os.listdir(tmp_path) == []


def taken(folder):
    """What a run does first: take the lock of its result."""
    Lock(folder, 'accuracy.json').take()


def test_what_may_not_be_read_is_not_called_missing(tmp_path, closed):
    folder = tmp_path / 'folder'
    folder.mkdir()
    for name in ('last_checkpoint.pth.tar', 'a.safetensors', 'image_ids.txt', 'a.png'):
        (folder / name).touch()
    path = str(folder / 'last_checkpoint.pth.tar')
    assert util.is_file(path) and not util.is_file(folder) and not util.is_file(folder / 'other')
    readers = [read_record, read_photograph, lambda path: read_image_ids(os.path.dirname(path))]
    names = ['last_checkpoint.pth.tar', 'a.png', 'image_ids.txt']
    with closed(folder):
        for find in (util.is_file, lambda path: util.find_checkpoint(path, 'save')):
            with pytest.raises(PermissionError):
                find(path)
        for read, name in [*zip(readers, names), (read_record, 'a.safetensors')]:
            with pytest.raises(UserError, match=f'{folder / name} cannot be read .Permission denied.'):
                read(str(folder / name))
    with pytest.raises(FileNotFoundError, match='none.pth cannot be read .No such file'):
        read_record(str(folder / 'none.pth'))


def test_a_full_disk_is_the_users_to_mend(tmp_path):
    def full(file):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with pytest.raises(UserError, match='cannot write .*x: the disk is full'):
        util.atomically(str(tmp_path / 'x'), full)
    assert os.listdir(tmp_path) == []


def test_a_file_that_another_run_writes_at_the_same_time_is_told(tmp_path):
    path = str(tmp_path / 'a.png')
    util.write_text(path, 'whole')
    with pytest.raises(UserError, match='a.png is being written by another run, too: wait for it'):
        util.atomically(path, lambda file: os.rename(f'{path}.partial', path))
    assert os.listdir(tmp_path) == ['a.png']


def test_a_log_on_a_full_disk_is_named(tmp_path):
    log = util.Log(str(tmp_path / 'log.jsonl'), {'seed': 1})
    log.file.close()
    log.file = open('/dev/full', 'w')
    with pytest.raises(UserError, match='cannot write /dev/full: the disk is full'):
        log.write(epoch=1)
    with pytest.raises(OSError):
        log.file.close()
    with pytest.raises(UserError, match='cannot write y: the quota is full'), util.full_disk_named('y'):
        raise OSError(errno.EDQUOT, 'Disk quota exceeded')
    with pytest.raises(UserError, match='cannot write y: files of this size are not'), util.full_disk_named('y'):
        raise OSError(errno.EFBIG, 'File too large')
    with pytest.raises(PermissionError), util.full_disk_named('y'):
        raise PermissionError(errno.EACCES, 'not allowed')
