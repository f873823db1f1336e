"""main.py in this process: what a run writes, which checkpoint is the best one, what each process reads."""

import json
import os
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import MINICUB

import main
import wsol
from config import get_configs
from data_loaders import load_split, make_loader
from engine import processes, training
from engine.resume import resuming
from wsol.errors import MissingFile
from wsol.preprocessing import PAPER

FLAGS = [
    '--dataset=CUB',
    f'--data_root={MINICUB}/dataset',
    f'--metadata_root={MINICUB}/metadata',
    '--workers=0',
    '--seed=4',
    '--architecture=vgg_tiny',
    '--pretrained=False',
    '--resize_size=40',
    '--crop_size=32',
    '--batch_size=5',
]


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch):
    monkeypatch.setattr(processes, '_signals', [])


def call(monkeypatch, root, name, *words):
    monkeypatch.setattr(sys, 'argv', ['main.py', *FLAGS, f'--save_root={root}', f'--experiment_name={name}', *words])
    main.main()
    with open(root / name / 'accuracy.json') as file:
        return json.load(file)


def checkpoint(folder, name='last'):
    return torch.load(folder / f'{name}_checkpoint.pth.tar', weights_only=True)


def percent_right(record, split_name):
    """Accuracy of a checkpoint's network on a split, one image at a time."""
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 200).eval()
    model.load_state_dict(record['state_dict'])
    split = load_split('CUB', split_name, f'{MINICUB}/dataset', f'{MINICUB}/metadata')
    with torch.no_grad():
        right = [
            model(images).probs.argmax(dim=1) == labels for images, labels, _ in make_loader(split, False, 1, 0, 40, 32)
        ]
    return 100 * torch.cat(right).float().mean().item()


def test_a_run_writes_what_its_checkpoints_say(tmp_path, monkeypatch):
    words = ['--attribution_method=CALM-ML', '--epochs=3', '--lr=.004', '--lr_decay_frequency=3']
    result = call(monkeypatch, tmp_path, 'run', *words)
    folder = tmp_path / 'run'
    with open(folder / 'log.jsonl') as file:
        head, *epochs, test = [json.loads(line) for line in file]
    accuracies = [record['val_accuracy'] for record in epochs]
    best = accuracies.index(max(accuracies)) + 1  # the first of several
    assert [record['epoch'] for record in epochs] == [1, 2, 3]
    assert (checkpoint(folder)['epoch'], checkpoint(folder, 'best')['epoch']) == (3, best)
    assert percent_right(checkpoint(folder), 'val') == pytest.approx(accuracies[-1])
    assert percent_right(checkpoint(folder, 'best'), 'val') == pytest.approx(max(accuracies)) and max(accuracies) > 0
    assert percent_right(checkpoint(folder), 'test') == pytest.approx(result['test_accuracy'])
    assert result['test_accuracy'] == test['test_accuracy'] and result['best_val_accuracy'] == max(accuracies)
    assert result['images'] == 24 and result['arguments'] == head['arguments'] and head['arguments']['seed'] == 4
    assert epochs[0]['lr'] == pytest.approx([0.004, 0.04]) and epochs[2]['lr'] == pytest.approx([0.0004, 0.004])
    assert epochs[0]['loss'] > epochs[2]['loss'] > 0 and epochs[2]['train_accuracy'] > epochs[0]['train_accuracy']
    assert training.STATE not in os.listdir(folder)
    monkeypatch.setattr(sys.modules[__name__], 'FLAGS', [flag for flag in FLAGS if flag != '--seed=4'])
    tested = call(monkeypatch, tmp_path, 'tested', *words, '--is_train=False', f'--load_checkpoint={folder}')
    assert tested['test_accuracy'] == result['test_accuracy'] and tested['best_val_accuracy'] is None
    assert tested['arguments']['seed'] >= 0  # the one that was drawn
    assert sorted(os.listdir(tmp_path / 'tested')) == ['accuracy.json', 'accuracy.npz', 'log_test.jsonl']


def test_the_best_checkpoint_is_that_of_the_highest_accuracy_the_first_of_several(tmp_path):
    model = torch.nn.Linear(1, 1)
    run = resuming.Run(str(tmp_path), {'architecture': 'none'}, resume=False, override=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    trainer = SimpleNamespace(run=run, model=model, optimizer=optimizer, best=-1.0)
    written = []
    for epoch, accuracy in enumerate([0, 40, 30, 40, 50, 49], 1):
        trainer.epoch = epoch
        main.save_checkpoints(trainer, accuracy)
        written.append((checkpoint(tmp_path)['epoch'], checkpoint(tmp_path, 'best')['epoch'], trainer.best))
    assert written == [(1, 1, 0), (2, 2, 40), (3, 2, 40), (4, 2, 40), (5, 5, 50), (6, 5, 50)]


def test_another_process_writes_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, 'rank', lambda: 1)
    trainer = SimpleNamespace(run=resuming.Run(str(tmp_path), {}, False, False), best=-1.0)
    main.save_checkpoints(trainer, 40)
    assert trainer.best == 40 and os.listdir(tmp_path) == []


class Recorder:
    """In the place of a Trainer: notes in which order it is asked for what."""

    def __init__(self, epoch, step):
        flags = get_configs('', [*FLAGS, '--epochs=3', '--lr_decay_frequency=2'])
        self.recipe = main.pick(training.Recipe, flags)
        self.run = resuming.Run('folder', {}, False, False)
        self.epoch = epoch
        self.step = step
        self.best = -1.0
        self.model = 'model'
        self.device = 'cpu'
        parameter = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([{'params': [parameter], 'lr': 1.0}, {'params': [], 'lr': 10.0}])
        self.events = []

    def train_epoch(self, loader, title, save):
        self.events.append(f'{title}, rate {self.optimizer.param_groups[1]["lr"]:g}')
        return 0.5, 25.0

    def share_buffers(self):
        self.events.append('share')

    def next_epoch(self):
        self.events.append('next')
        self.epoch += 1
        self.step = 0

    def save(self, log):
        self.events.append('save')

    def report(self, text, **record):
        figures = [record[name] for name in ('epoch', 'loss', 'train_accuracy', 'val_accuracy')]
        self.events.append(f'log {figures}')


@pytest.mark.parametrize('epoch, step, rates', [(1, 0, '10 1 1'), (2, 0, '1 1'), (2, 3, '10 10')])
def test_an_epoch_in_order(monkeypatch, epoch, step, rates):
    """Its rates first, unless it was begun already; statistics are shared before the accuracy is taken."""
    trainer = Recorder(epoch, step)

    def classified_right(model, loader, recipe, device, title, folder, save):
        assert (model, loader, title, folder) == ('model', 'val', 'validation', 'folder')
        trainer.events.append('accuracy')
        return torch.arange(10) < 3

    monkeypatch.setattr(training, 'classified_right', classified_right)
    monkeypatch.setattr(main, 'save_checkpoints', lambda trainer, accuracy: trainer.events.append(f'best {accuracy}?'))
    loaders = main.Loaders(SimpleNamespace(dataset=range(24)), 'val', None)
    assert main.train(trainer, loaders, trainer, None) == -1.0
    expected = []
    for number, rate in zip(range(epoch, 4), rates.split()):
        expected += [f'epoch {number}/3, rate {rate}', 'share', 'accuracy', f'log [{number}, 0.5, 25.0, 30.0]']
        expected += ['best 30.0?', 'next', 'save']
    assert trainer.events == expected


def loaders_of(*flags):
    args = get_configs('', [*FLAGS, *flags])
    return main.make_loaders(args, main.load_splits(args), 4, PAPER)


def test_processes_share_every_batch(monkeypatch):
    seen = {name: [] for name in ('train', 'val', 'test')}
    for rank in range(3):
        monkeypatch.setattr(processes, 'rank', lambda: rank)
        monkeypatch.setattr(processes, 'world', lambda: 3)
        loaders = loaders_of()
        for name, batches in seen.items():
            batches.append([[key % 24 for key in keys] for keys in getattr(loaders, name).batch_sampler])
    for name in ('val', 'test'):
        assert seen[name] == [[list(range(24))[i : i + 5][rank::3] for i in range(0, 24, 5)] for rank in range(3)]
    together = [sum(parts, []) for parts in zip(*seen['train'])]
    assert [len(batch) for batch in together] == [5, 5, 5, 5, 4] and sorted(sum(together, [])) == list(range(24))
    assert all(len(parts[0]) - len(parts[2]) in (0, 1) for parts in zip(*seen['train']))


def test_the_list_of_the_proxy_is_that_of_the_training_alone(monkeypatch):
    asked = []
    load = main.load_split

    def load_split(dataset, name, data_root, metadata_root, proxy):
        asked.append((name, proxy))
        return load(dataset, name, data_root, metadata_root)

    monkeypatch.setattr(main, 'load_split', load_split)
    loaders_of('--proxy_training_set')
    loaders_of()
    names = ('train', 'val', 'test')
    assert asked == [*zip(names, (True, False, False)), *zip(names, (False, False, False))]


def test_a_test_alone_reads_the_test_split_alone():
    loaders = loaders_of('--is_train=False')
    assert loaders.train is loaders.val is None and loaders.test.dataset.split.name == 'test'
    trained = loaders_of()
    assert [getattr(trained, name).dataset.split.name for name in ('train', 'val', 'test')] == ['train', 'val', 'test']
    cropped = [getattr(trained, name).dataset.transform.__self__.training for name in ('train', 'val')]
    assert cropped == [True, False]


def test_missing_images_are_found_before_the_network_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(main, 'make_model', lambda *_: pytest.fail('the network came first'))
    (tmp_path / 'empty/CUB/images').mkdir(parents=True)
    with pytest.raises(MissingFile, match='no images of CUB train'):
        call(monkeypatch, tmp_path, 'no_images', f'--data_root={tmp_path}/empty')
