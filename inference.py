"""Explain photographs with a checkpoint or a trained classifier, or save the score maps of a split.

    python inference.py --images 'photos/*.jpg' --load_checkpoint=quickstart/CALM-EM \\
        --classes=@1,@2 --method=jointll,grad_cam
    python inference.py --save_scoremaps=save/maps --split=test \\
        --load_checkpoint=quickstart/CALM-EM

A panel shows the photograph, the maps of classes A and B over it, and their difference, "why A and not B". Its file is
DIR/<path below the photographs' common folder>.png. The flags of the network are read from the checkpoint if it
contains them. Images that cannot be read are reported and left out; the exit code is then 2.
"""

import engine.before_torch  # noqa: F401 (before PyTorch is loaded)

import os
import sys

import numpy as np
import torch

import util
from config import given_flags, pick
from data import photographs
from data.classes import parse_classes
from data_loaders import make_loader
from engine import experiments, map_maker, models
from engine.command import command
from report import panels
from wsol import attribution
from wsol.errors import AlreadyThere, UserError

COMMAND = 'inference'


def arguments(argv=None):
    """The parsed arguments, with missing flags of the network and `num_classes` from the checkpoint."""
    return experiments.network_arguments(given_flags(__doc__, argv, COMMAND), COMMAND)


def load(args):
    """The `Experiment` of the arguments: a checkpoint or a trained classifier."""
    if args.classifier:
        return experiments.load_classifier_experiment(args.classifier, args, args.architecture)
    return experiments.load_experiment(pick(models.Source, args).path(), args)


def save_map(folder, name, array, override):
    """Write a float array to folder/name.npy; AlreadyThere for an existing file without `override`."""
    path = os.path.join(folder, f'{name}.npy')
    if os.path.exists(path) and not override:
        raise AlreadyThere(
            f'{path} exists already: give another --save_scoremaps, or --override_cache=True to replace it'
        )
    util.make_folder(os.path.dirname(path))
    util.atomically(path, lambda file: np.save(file, array))


def map_names(args):
    """The list of maps of --method, else --score_map_process; None for the network's own. Checks --at."""
    interactions = [name for name, row in attribution.MAPS.items() if row.interaction]
    named = args.method or args.score_map_process
    names = [name.strip() for name in named.split(',')] if named else []
    for name in names:
        attribution.lookup(name)
    if args.at and not {*names} & {*interactions}:
        raise UserError(f'--at chooses a location for maps of interactions: give --method={" or ".join(interactions)}')
    return names or None


def explain_photographs(args, files, titles, failed):
    """Yield (title, Panel) of the readable photographs; error messages of the others go to `failed`."""
    experiment = load(args)
    model = experiment.model
    chosen = parse_classes(args.classes, model.num_classes, experiment.class_names) if args.classes else [-1]
    makers = experiments.map_makers(experiment, map_names(args), args.at)
    device = next(model.parameters()).device
    size = experiment.arguments.crop_size
    for batch in photographs.photograph_loader(files, size, args.batch_size, args.workers, model.preprocessing):
        for wrong in (photograph.wrong for photograph in batch if photograph.wrong):
            print(f'inference.py: left out: {wrong}', file=sys.stderr, flush=True)
            failed.append(wrong)
        good = [photograph for photograph in batch if not photograph.wrong]
        if not good:
            continue
        images = torch.stack([photograph.tensor for photograph in good]).to(device)
        numbers = [photograph.number for photograph in good]
        explained = experiments.explain_batch(model, makers, images, chosen, numbers)
        for photograph, explanation in zip(good, explained):
            title = titles[photograph.number]
            if args.save_scoremaps:
                for name, array in explanation.named_maps().items():
                    save_map(args.save_scoremaps, f'{title}.{name}', array, args.override_cache)
            yield (
                title,
                panels.make_panel(
                    title, photograph.picture, experiment.class_names, *explanation, model.attribution_method
                ),
            )


def draw_photographs(args):
    """Draw a panel of every photograph of --images, and save its maps with --save_scoremaps."""
    files = photographs.find_photographs(args.images)
    failed = []
    args.workers = min(args.workers, len(files) // 4)  # starting processes does not pay for a few
    titles = photographs.unique_names(files)
    output = args.output or os.path.join(args.log_folder, 'panels')
    existing = [path for path in (os.path.join(output, f'{title}.png') for title in titles) if os.path.exists(path)]
    if existing and not args.override_cache:
        more = f' (and {len(existing) - 1} more)' if existing[1:] else ''
        raise AlreadyThere(
            f'{existing[0]} exists already{more}: give another --output, or --override_cache=True to replace it'
        )
    for folder in filter(None, (output, args.save_scoremaps)):
        util.check_folder(folder)
    with panels.panel_writer(args.workers) as write:
        made = explain_photographs(args, files, titles, failed)
        for path in write((os.path.join(output, f'{title}.png'), panel) for title, panel in made):
            print(path, flush=True)
    if failed:
        raise UserError(f'{len(failed)} of {len(files)} images were left out, for the reasons above')


def save_split(args):
    """Save the score map of each image's class, <image id>.npy as in the protocol: float64 [S, S] in [0, 1]."""
    names = map_names(args)
    if names and len(names) > 1 or args.classes:
        raise UserError(
            "score maps of a split are of one --method and each image's own class: give one method and no --classes, "
            'or --images'
        )
    util.check_folder(args.save_scoremaps)
    experiment = load(args)
    split = experiments.load_experiment_split(experiment, args.split)
    [(name, maker)] = experiments.map_makers(experiment, names, args.at).items()
    loader = make_loader(
        split,
        False,
        args.batch_size,
        args.workers,
        crop_size=args.crop_size,
        preprocessing=experiment.model.preprocessing,
        device=next(experiment.model.parameters()).device,
    )
    count = len(split.image_ids)
    score_maps = map_maker.split_score_maps(maker, loader, args.crop_size)
    for image_id, one in util.progress(score_maps, count, 'score maps'):
        save_map(args.save_scoremaps, image_id, one, args.override_cache)
    print(f'{count} maps of {args.dataset} {args.split} by {name} in {args.save_scoremaps}')


def main():
    args = arguments()
    drawn = args.seed is None
    args.seed = util.set_seed(args.seed)
    if args.images:
        draw_photographs(args)
    elif args.save_scoremaps:
        save_split(args)
    else:
        raise UserError(
            'nothing to do: give --images=PATTERN for pictures, or --save_scoremaps=DIR for the maps of a split'
        )
    if drawn:
        util.tell_seed(args.seed, sys.stderr)  # standard output lists the files


if __name__ == '__main__':
    command(main)
