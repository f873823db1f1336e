"""Train a CAM or CALM network and report its accuracy.

    python main.py --experiment_name=calm_em --architecture=resnet50 \\
        --attribution_method=CALM-EM --dataset=CUB --use_bn=True --large_feature_map=True
    python scripts/torchrun.py --nproc_per_node=4 main.py --resume=True (with the same flags)
"""

import engine.before_torch  # noqa: F401 (before PyTorch is loaded)

import os
import sys
import time
from typing import NamedTuple

import numpy as np
import torch

import util
from config import get_configs, pick
from data import folders
from data_loaders import SPLITS, EpochBatches, class_count, load_split, make_loader
from engine import arrays, models, processes, training
from engine.command import command
from engine.lone_images import check_lone_images
from engine.resume import resuming
from wsol import classifiers
from wsol.backbones import PRETRAINED, timm
from wsol.errors import UserError
from wsol.preprocessing import ImageLoader, from_record

LOG = 'log.jsonl'
RESULT = resuming.TRAINED
ARRAYS = 'accuracy.npz'  # per test image
CHECKPOINTS = [util.CHECKPOINT.format(name) for name in ('last', 'best')]


class Loaders(NamedTuple):
    """The loader of each split."""

    train: ImageLoader | None  # None, like val, without training
    val: ImageLoader | None
    test: ImageLoader


def find_split(args, checkpoint, seed):
    """The folder of the split files, --metadata_root.

    For a folder of photographs, training writes split.json to its experiment folder: the one found there by --resume,
    that of the checkpoint it starts from (whose test images stay unseen), or a new one drawn with the seed.
    """
    if args.dataset != folders.NAME or not args.is_train:
        return models.metadata_root(args, checkpoint)
    split = folders.for_resuming(args.data_root, args.log_folder) if args.resume else None
    sources = [os.path.dirname(checkpoint)] if checkpoint else []
    split = split or folders.for_training(args.data_root, sources, seed)
    if processes.rank() == 0:
        root = args.data_root
        for line in (folders.missing_line(split, root), folders.other_files_line(root), folders.not_read_line(root)):
            if line:
                print(f'main.py: {line}', file=sys.stderr, flush=True)
        folders.write(args.log_folder, split)
    processes.wait()
    return args.log_folder


def start_from_classifier(args):
    """Replace --classifier=NAME by a pretrained --architecture, and --classifier=FILE by --load_checkpoint."""
    name = args.classifier
    if classifiers.is_file(name):
        args.use_load_checkpoint = True
        args.load_checkpoint = name
        return
    if not name.startswith(timm.PREFIX) and name not in PRETRAINED:
        raise UserError(
            f'--classifier={name} cannot be trained here: training starts from {", ".join(PRETRAINED)}, timm/<name>, '
            'or a file of weights with its --architecture'
        )
    if not args.is_train:
        raise UserError(
            f'--classifier={name} starts a training; --is_train=False tests a --load_checkpoint: give one of them'
        )
    args.architecture = name
    args.pretrained = True


def load_splits(args):
    """{name: its `Split`} of the splits that this run reads."""
    places = args.data_root, args.metadata_root
    return {
        name: load_split(args.dataset, name, *places, args.proxy_training_set and name == 'train')
        for name in (SPLITS if args.is_train else ('test',))
    }


def make_loaders(args, splits, seed, preprocessing, device=torch.device('cpu')):
    """The `Loaders` of `load_splits`, with this process's share of every batch on `device`; preprocessing: the
    network's."""
    share = slice(processes.rank(), None, processes.world())
    size = args.batch_size
    loaders = {'train': None, 'val': None}
    for name, split in splits.items():
        keys = range(len(split.image_ids))
        if name == 'train':
            batches = EpochBatches(len(keys), size, seed, processes.rank(), processes.world())
        else:
            batches = [list(keys[first : first + size][share]) for first in range(0, len(keys), size)]
        sizes = args.resize_size, args.crop_size
        how = batches, preprocessing, device, args.channels_last
        loaders[name] = make_loader(split, name == 'train', size, args.workers, *sizes, seed, *how)
    return Loaders(**loaders)


def train(trainer, loaders, log, board):
    """Train the remaining epochs, writing the last and best checkpoints; returns the best validation accuracy."""
    run = trainer.run
    recipe = trainer.recipe

    def save():
        trainer.save(log)

    while trainer.epoch <= recipe.epochs:
        epoch = trainer.epoch
        start = time.monotonic()
        images = len(loaders.train.dataset) - trainer.step * recipe.batch_size  # remaining in this epoch
        if trainer.step == 0:
            training.adjust_learning_rate(trainer.optimizer, epoch, recipe.lr_decay_frequency)
        title = f'epoch {epoch}/{recipe.epochs}'
        loss, train_accuracy = trainer.train_epoch(loaders.train, title, save)
        seconds = time.monotonic() - start
        trainer.share_buffers()
        val_right = training.classified_right(
            trainer.model, loaders.val, recipe, trainer.device, 'validation', run.folder, save
        )
        val_accuracy = training.accuracy(val_right)
        record = {
            'epoch': epoch,
            'loss': loss,
            'train_accuracy': train_accuracy,
            'val_accuracy': val_accuracy,
            'lr': [group['lr'] for group in trainer.optimizer.param_groups],
            'seconds': seconds,
            'images_per_second': max(0, images) / seconds,
        }
        text = f'loss {loss:.4f}, train {train_accuracy:.2f} %, val {val_accuracy:.2f} %, {seconds:.0f} s'
        log.report(f'{title}: {text}', **record)
        if board:
            write_to_board(board, trainer.model, record)
        save_checkpoints(trainer, val_accuracy)
        trainer.next_epoch()
        save()
    return trainer.best


def write_to_board(board, model, record):
    """Add an epoch's record of the log, and maps of the model, to a `Board`."""
    scalars = {
        'loss': record['loss'],
        'accuracy/train': record['train_accuracy'],
        'accuracy/val': record['val_accuracy'],
        'rate/backbone': record['lr'][0],
        'rate/rest': record['lr'][1],
    }
    board.write(model, record['epoch'], scalars)


def save_checkpoints(trainer, val_accuracy):
    """Write the last checkpoint, and the best one if the validation accuracy has improved."""
    names = CHECKPOINTS if val_accuracy > trainer.best else CHECKPOINTS[:1]
    trainer.best = max(trainer.best, val_accuracy)
    if processes.rank() == 0:
        for name in names:
            path = os.path.join(trainer.run.folder, name)
            util.save_checkpoint(path, trainer.model, trainer.optimizer, trainer.epoch, trainer.run.arguments)


def saved_state(run, args):
    """The saved state that --resume continues, whose seed is adopted; None if there is none."""
    path = os.path.join(run.folder, training.STATE)
    if not processes.agreed(args.is_train and run.resume and os.path.isfile(path)):
        return None
    record = util.read_checkpoint(path, args.architecture, args.attribution_method, args.large_feature_map)
    if not {'epoch', 'args', 'optimizer', 'progress'} <= record.keys():
        raise UserError(
            f'{path} is not the state of a stopped training: to train from a checkpoint, give --load_checkpoint=FILE '
            'and another --experiment_name'
        )
    begun = record['epoch'] - (record['progress']['step'] == 0)  # the last epoch with a step done

    def check():
        resuming.same_command(run.arguments, record['args'], path, resuming.GROWING)
        if begun > args.epochs:
            raise UserError(f'{path} is in epoch {begun} already: give --epochs={begun} or more')

    processes.first_alone(check)
    run.arguments['seed'] = record['args']['seed']
    return record


def make_board(args, trainer, dataset):
    """The `Board` for TensorBoard; None without --tensorboard."""
    if not args.tensorboard or processes.rank():
        return None
    from report.board import Board  # loads matplotlib

    folder = os.path.join(args.log_folder, 'tensorboard')
    return Board(folder, dataset, trainer.model, args.attribution_method, trainer.epoch)


def make_model(args, num_classes, device, checkpoint, state):
    """(the network to train or test, lines on the checkpoint that training starts from).

    checkpoint: the file to load, or None; state: a saved state, whose weights the caller loads.
    """
    spec = pick(models.Spec, args)
    if checkpoint and (args.is_train or args.is_different_checkpoint):
        return models.start_model(spec, num_classes, device, checkpoint, args.is_different_checkpoint)
    model = models.load_model(spec, num_classes, device, checkpoint, weights=not state)
    if state:
        model.preprocessing = from_record(state['args'].get('preprocessing'))
    return model, []


def train_and_test(args, run, device):
    """The run itself, in its claimed folder."""
    state = saved_state(run, args)
    seed = run.arguments['seed']
    seed = util.set_seed(processes.agreed(util.draw_seed() if seed is None else seed))
    run.arguments['seed'] = seed
    checkpoint = None if state else pick(models.Source, args).path()
    run.arguments['metadata_root'] = args.metadata_root = find_split(args, checkpoint, seed)
    num_classes = class_count(args.dataset, args.metadata_root)
    splits = load_splits(args)  # missing images are found before pretrained weights are downloaded
    model, lines = make_model(args, num_classes, device, checkpoint, state)
    run.arguments['preprocessing'] = model.preprocessing._asdict()
    loaders = make_loaders(args, splits, seed, model.preprocessing, device)
    recipe = pick(training.Recipe, args)
    trainer = None
    if args.is_train:
        listed = args.dataset != folders.NAME  # a folder may lose photographs before --resume; `find_split` reports it
        images = resuming.digest([(split.image_ids, split.labels) for split in splits.values()]) if listed else None
        trainer = training.Trainer(run, recipe, model, device, images)
        check_lone_images(trainer, len(loaders.train.dataset), args.crop_size)
    if state:
        trainer.load(state)
    path = os.path.join(run.folder, LOG if args.is_train else 'log_test.jsonl') if processes.rank() == 0 else None
    log = util.Log(path, run.provenance(), state['progress']['log_size'] if state else 0)
    for line in lines:
        log.report(line, start=line)
    if args.seed is None and processes.rank() == 0:
        util.tell_seed(seed)
    best = None
    if trainer:
        if not state:
            trainer.save(log)  # finds a full disk or a read-only folder now; records the arguments for --resume
        best = train(trainer, loaders, log, make_board(args, trainer, loaders.val.dataset))
    right = training.classified_right(model, loaders.test, recipe, device, 'test', run.folder)
    test = training.accuracy(right)
    log.report(f'test accuracy {test:.2f} %', test_accuracy=test)
    if processes.rank() == 0:
        ids = np.array(loaders.test.dataset.split.image_ids)
        arrays.write(os.path.join(run.folder, ARRAYS), {'ids': ids, 'correct': right.numpy()})
        util.write_json(
            os.path.join(run.folder, RESULT),
            {'test_accuracy': test, 'best_val_accuracy': best, 'images': len(loaders.test.dataset), **run.provenance()},
        )
        if args.is_train:
            os.unlink(os.path.join(run.folder, training.STATE))


def main():
    args = get_configs(__doc__, command='main')
    if args.classifier:
        start_from_classifier(args)
    device = processes.start()
    run = resuming.Run(args.log_folder, dict(args), args.resume, args.override_cache)
    files = [ARRAYS]
    if args.is_train:
        files += [*CHECKPOINTS, training.STATE, *([] if args.resume else [LOG, folders.FILE])]
    with resuming.claim(run, RESULT, files, training.STATE if args.is_train else None) as mine:
        if mine:
            train_and_test(args, run, device)
    processes.finish()


if __name__ == '__main__':
    command(main)
