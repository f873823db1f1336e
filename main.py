"""Train a CAM or CALM network and report its accuracy.

    python main.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM --dataset=CUB \\
        --use_bn=True --large_feature_map=True
    torchrun --nproc_per_node=4 main.py --resume=True (the same flags)
"""

import os
import time

import numpy as np
import torch
from munch import Munch

import cluster
import inference
import panels
import training
import util
import wsol
from config import get_configs
from data_loaders import DATASETS, SPLITS, EpochBatches, denormalize, load_split, make_loader
from wsol.errors import UserError

LOG, RESULT = 'log.jsonl', 'accuracy.json'
CHECKPOINTS = [util.CHECKPOINT.format(name) for name in ('last', 'best')]


class Board:
    """TensorBoard's view of a training, in the folder tensorboard of the experiment; does nothing without --tensorboard."""

    IMAGES = 4

    def __init__(self, args, trainer, dataset):
        self.writer = None
        if not args.tensorboard or cluster.rank():
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError('--tensorboard needs the package tensorboard: pip install tensorboard') from None
        self.writer = SummaryWriter(os.path.join(args.log_folder, 'tensorboard'), purge_step=trainer.epoch)
        items = [
            dataset[i] for i in np.linspace(0, len(dataset) - 1, min(self.IMAGES, len(dataset))).astype(int).tolist()
        ]
        self.images, self.labels, self.names = (
            torch.stack([item[0] for item in items]),
            [item[1] for item in items],
            [item[2] for item in items],
        )
        self.args, self.makers = args, inference.map_makers(trainer.model, Munch(args, score_map_process=None))

    def write(self, model, epoch, scalars):
        """Add the scalars of an epoch, and its maps of the same validation images every time."""
        if not self.writer:
            return
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, epoch)
        images, pictures = (
            self.images.to(next(model.parameters()).device),
            denormalize(self.images).permute(0, 2, 3, 1).numpy(),
        )
        for number, y in enumerate(self.labels):
            probs, _, maps = inference.explain_batch(model, self.makers, images[number : number + 1], [y])
            panel = panels.make(
                self.names[number],
                pictures[number],
                None,
                probs[0].tolist(),
                [y],
                {name: one[0] for name, one in maps.items()},
                self.args.attribution_method,
            )
            self.writer.add_figure(f'maps/{number}', panels.draw(panel), epoch)
        self.writer.flush()


def train(args, trainer, loaders, log):
    """The epochs that are left; writes the last and the best checkpoint. Returns the best validation accuracy."""
    save, board = lambda: trainer.save(log), Board(args, trainer, loaders.val.dataset)
    while trainer.epoch <= args.epochs:
        epoch, start, done = trainer.epoch, time.monotonic(), trainer.step * args.batch_size
        if trainer.step == 0:
            training.adjust_learning_rate(trainer.optimizer, epoch, args.lr_decay_frequency)
        text = f'epoch {epoch}/{args.epochs}'
        loss, train_accuracy = trainer.train_epoch(loaders.train, text, save)
        seconds = time.monotonic() - start
        trainer.share_buffers()
        val_accuracy = training.accuracy(trainer.model, loaders.val, args, trainer.device, 'validation', stop=save)
        log.report(
            f'{text}: loss {loss:.4f}, train {train_accuracy:.2f} %, val {val_accuracy:.2f} %, {seconds:.0f} s',
            epoch=epoch,
            loss=loss,
            train_accuracy=train_accuracy,
            val_accuracy=val_accuracy,
            lr=[group['lr'] for group in trainer.optimizer.param_groups],
            seconds=seconds,
            images_per_second=max(0, len(loaders.train.dataset) - done) / seconds,
        )
        board.write(
            trainer.model,
            epoch,
            {
                'loss': loss,
                'accuracy/train': train_accuracy,
                'accuracy/val': val_accuracy,
                **{
                    f'rate/{name}': group['lr']
                    for name, group in zip(('backbone', 'rest'), trainer.optimizer.param_groups)
                },
            },
        )
        names = CHECKPOINTS if val_accuracy > trainer.best else CHECKPOINTS[:1]
        trainer.best = max(trainer.best, val_accuracy)
        if cluster.rank() == 0:
            for name in names:
                util.save_checkpoint(os.path.join(args.log_folder, name), trainer.model, trainer.optimizer, epoch, args)
        trainer.next_epoch()
        save()
    return trainer.best


def make_loaders(args):
    """({split: loader} of what the run needs, class count). A process gets its share of every batch."""
    loaders, share = Munch(), slice(cluster.rank(), None, cluster.world())
    for name in SPLITS if args.is_train else ('test',):
        split = load_split(
            args.dataset, name, args.data_root, args.metadata_root, args.proxy_training_set and name == 'train'
        )
        keys, size = range(len(split.image_ids)), args.batch_size
        batches = [list(keys[first : first + size][share]) for first in range(0, len(keys), size)]
        if name == 'train':
            batches = EpochBatches(len(keys), size, args.seed, cluster.rank(), cluster.world())
        loaders[name] = make_loader(
            split, name == 'train', size, args.workers, args.resize_size, args.crop_size, args.seed, batches
        )
    return loaders, split.num_classes


def saved_state(args):
    """The state of an earlier call to go on from, or None; its seed is taken over."""
    path = os.path.join(args.log_folder, training.STATE)
    if not cluster.agreed(args.is_train and args.resume and os.path.isfile(path)):
        return None
    record = util.read_checkpoint(path, args.architecture, args.attribution_method, args.large_feature_map)
    cluster.same_command(args, record['args'], path, training.MAY_DIFFER)
    if record['epoch'] + (record['progress']['step'] > 0) > args.epochs + 1:
        raise UserError(f'{path} is in epoch {record["epoch"]} already: give --epochs={record["epoch"]} or more')
    args.seed = record['args']['seed']
    return record


def main():
    args = get_configs(__doc__, {**wsol.CHOICES, 'dataset': tuple(DATASETS)})
    device = cluster.start()
    files = [*CHECKPOINTS, training.STATE, *([] if args.resume else [LOG])] if args.is_train else []
    if not cluster.claim(args, RESULT, files, training.STATE if args.is_train else None):
        return
    state = saved_state(args)
    args.seed = util.set_seed(cluster.agreed(util.draw_seed() if args.seed is None else args.seed))
    loaders, num_classes = make_loaders(args)
    model = inference.load_model(args, num_classes, device, weights=not state)
    trainer = training.Trainer(args, model, device) if args.is_train else None
    if state:
        trainer.load(state)
    path = os.path.join(args.log_folder, LOG if args.is_train else 'log_test.jsonl') if cluster.rank() == 0 else None
    log = util.Log(path, args, state['progress']['log_size'] if state else 0)
    if trainer and not state:
        trainer.save(log)  # a full disk or a locked folder shows now, and --resume knows whose folder this is
    best = train(args, trainer, loaders, log) if args.is_train else None
    test = training.accuracy(model, loaders.test, args, device, 'test')
    log.report(f'test accuracy {test:.2f} %', test_accuracy=test)
    if cluster.rank() == 0:
        util.write_json(
            os.path.join(args.log_folder, RESULT),
            {
                'test_accuracy': test,
                'best_val_accuracy': best,
                'images': len(loaders.test.dataset),
                'arguments': dict(args),
            },
        )
        if args.is_train:
            os.unlink(os.path.join(args.log_folder, training.STATE))
    cluster.finish()


if __name__ == '__main__':
    util.command(main)
