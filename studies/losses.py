"""Measures how far CALM-EM's gradient is from CALM-ML's in the first training steps on CUB, for docs/cub.md.

    python -m studies.losses --data_root dataset --metadata_root metadata

Trains CALM-EM of lite0 (studies/cub.py) for some steps, from ImageNet weights and from the study's CAM, and writes
losses.json to the save root: p(y|x) of every label seen, and for each step the distance of the gradients with respect
to the class scores and the cue location before its ReLU, |g_EM - g_ML| / |g_ML|. The rest of the network sees the
losses only through these.
"""

import argparse
import os

import torch

import main as trainer
import util
from config import Parser, get_configs, pick
from engine import models, processes, training
from engine.command import command
from engine.resume import resuming
from flags.row import COUNT, FROM_0
from studies import cub
from wsol import calm

RESULT = 'losses.json'
STARTS = {'ImageNet': 'CALM-EM-onestep', 'CAM': 'CALM-EM'}  # weights at the start: head


def gradients(output, y):
    """(ML's, EM's) gradients [n] with respect to f and, where the ReLU passes them on, h."""
    f, h = (one.detach().requires_grad_() for one in (output.f, output.h))
    for loss in (calm.ml_loss, calm.em_loss):
        by_f, by_h = torch.autograd.grad(loss(f, h, y).sum(), (f, h))
        yield torch.cat([by_f.flatten(), (by_h * (h > 0)).flatten()]).double()


def measure(head, args):
    """{'p': p(y|x) of the labels, 'distance': of the gradients in each step} for a head's first steps."""
    step = next(cub.training(cub.trained('lite0', head, 0, args), args))
    words = [word for word in step.words[1:] if word != '--compile=True']
    flags = get_configs(None, [*words, f'--save_root={args.save_root}', '--experiment_name=losses'], 'main')
    device = processes.start()
    seed = util.set_seed(flags.seed)
    splits = trainer.load_splits(flags)
    checkpoint = pick(models.Source, flags).path()
    model, _ = trainer.make_model(flags, splits['train'].num_classes, device, checkpoint, None)
    loader = trainer.make_loaders(flags, splits, seed, model.preprocessing, device).train
    run = resuming.Run(flags.log_folder, dict(flags), False, False)
    steps = training.Trainer(run, pick(training.Recipe, flags), model.train(), device)
    found = {'p': [], 'distance': []}
    for (images, labels, _), _ in zip(loader, range(args.steps)):
        x, y = training.to_device(images, labels, flags.channels_last, device)
        with torch.no_grad():
            output = steps.objective.output(x)
        ml, em = gradients(output, y)
        found['p'] += output.probs.double().gather(1, y[:, None]).flatten().tolist()
        found['distance'].append(float((em - ml).norm() / ml.norm()))
        steps.train_step(images, labels, len(labels))
    return found


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cub.add_folders(parser)
    parser.add_argument('--steps', type=COUNT, default=30, metavar='N', help='training steps (default: 30)')
    parser.add_argument('--workers', type=FROM_0, default=1, metavar='N', help='data loading processes (default: 1)')
    args = cub.parse_with_folders(parser)
    util.find_checkpoint(cub.trained('lite0', 'CAM', 0, args).name, args.save_root)  # before the first is measured
    found = {start: measure(head, args) for start, head in STARTS.items()}
    util.write_json(os.path.join(args.save_root, RESULT), found)


if __name__ == '__main__':
    command(main)
