"""Finished experiments: loading a network with its class names, and explaining images with it.

An experiment is described by arguments named like the flags of config.py. B: images; C: classes; K: explained classes.
"""

import os
import sys
from dataclasses import replace
from typing import NamedTuple

import torch
from munch import Munch

import util
from config import complete, get_configs, map_options, pick
from data.classes import class_names
from data_loaders import class_count, load_split
from engine import models, processes
from engine.map_maker import MapMaker
from wsol import classifiers
from wsol.errors import UserError
from wsol.network import HEADS
from wsol.weights import read_record

# The flags that describe a network and its data.
DESCRIBING = (
    'dataset',
    'data_root',
    'metadata_root',
    'crop_size',
    'architecture',
    'attribution_method',
    'use_bn',
    'large_feature_map',
)


class Experiment(NamedTuple):
    """A loaded network and its description."""

    name: str  # for display
    arguments: Munch  # all flags: of the network, its data and its maps
    model: torch.nn.Module  # in eval mode, on its device
    class_names: list | None  # None if unknown


class Explanation(NamedTuple):
    """The prediction for an image, and its maps."""

    probs: list  # C floats
    classes: list  # the K explained classes
    maps: dict  # {map name: float32 [K, h, w]}

    def named_maps(self):
        """{'MAP.y': map} of every map and explained class y."""
        return {f'{name}.{y}': one for name, maps in self.maps.items() for y, one in zip(self.classes, maps)}


def default_arguments():
    """The arguments of a command without flags."""
    return get_configs('', [])


def trained_arguments(path):
    """({flag: value} that describe the network of a checkpoint file, its class count).

    What the file does not contain is {} or None. Nothing is checked: `load_experiment` reports what is wrong with a
    file.
    """
    try:
        record = read_record(path)
        weights = [value for key, value in record['state_dict'].items() if key.endswith('conv_last.weight')]
        trained = util.trained_with(record)
        described = {key: trained[key] for key in DESCRIBING if key in trained}
        return described, len(weights[0])
    except (UserError, LookupError, TypeError, AttributeError):
        return {}, None


def network_arguments(given, command):
    """The arguments of a command that explains one network; missing flags come from its checkpoint.

    given: from `config.given_flags`. Flags that a classifier determines, and its `num_classes`, are None.
    """
    args = complete(given, command)
    if args.classifier:
        described, num_classes = {'crop_size': None, 'architecture': None}, None
    elif args.use_load_checkpoint:
        described, num_classes = trained_arguments(pick(models.Source, args).path())
    else:
        raise UserError(
            'no network given: give --load_checkpoint=FOLDER, or --use_load_checkpoint=True for the one in the '
            'experiment folder, or --classifier=NAME of a trained network'
        )
    args = complete(given, command, **described)
    args.num_classes = num_classes or (None if args.classifier else class_count(args.dataset, args.metadata_root))
    return args


def _check_kinds(arguments, usual, path):
    """UserError if an argument has another type than its flag: the log or checkpoint is damaged."""
    for key in DESCRIBING:
        kind = type(usual[key])
        if not isinstance(arguments[key], kind):
            raise UserError(f'{path}: its {key} is {arguments[key]!r}, not a value of --{key}: train it again')


def load_experiment(checkpoint, arguments=None, *, save_root='save', name=None, device=None):
    """The `Experiment` of a checkpoint; errors are UserError or OSError.

    checkpoint: a file or folder, found like --load_checkpoint. arguments: {flag: value}, which override the
    checkpoint's, which override the defaults. name: None for the checkpoint's folder; device: None for the
    accelerator, if there is one.
    """
    path = util.find_checkpoint(checkpoint, save_root)
    usual = default_arguments()
    trained, num_classes = trained_arguments(path)
    arguments = Munch(usual, **{**trained, **(arguments or {})})
    _check_kinds(arguments, usual, path)
    arguments.metadata_root = models.metadata_root(arguments, path)
    device = device or processes.accelerator()
    num_classes = num_classes or class_count(arguments.dataset, arguments.metadata_root)
    spec = pick(models.Spec, arguments)._replace(compile=False)
    model = models.load_model(spec, num_classes, device, path)
    model = models.for_inference(model, pick(models.Speed, arguments))
    return Experiment(name or os.path.dirname(path), arguments, model, network_class_names(arguments, model))


def network_class_names(arguments, model):
    """The list of class names of a network: a classifier's own, else those of its data set, else those that its
    checkpoint contains; or None."""
    if arguments.classifier:
        return model.class_names
    roots = arguments.data_root, arguments.metadata_root
    return class_names(arguments.dataset, model.num_classes, roots) or model.class_names


def load_classifier_experiment(name, arguments=None, architecture=None, device=None):
    """The `Experiment` of a trained classifier (wsol/classifiers.py), with its own preprocessing and class names.

    name: timm/<name>, a torchvision name, or a file of weights with its architecture. arguments: {flag: value}; the
    default crop_size is the classifier's. Errors are UserError.
    """
    model = classifiers.load_classifier(name, architecture)
    given = {key: value for key, value in (arguments or {}).items() if value is not None}
    own = {'crop_size': model.image_size, 'attribution_method': model.attribution_method, 'architecture': name}
    described = Munch(default_arguments(), **{**own, **given, 'attribution_method': model.attribution_method})
    model = models.for_inference(model.to(device or processes.accelerator()), pick(models.Speed, described))
    return Experiment(name, described, model, model.class_names)


def load_experiment_split(experiment, split_name):
    """The `Split` of an experiment's data set; UserError if its class count is not the network's."""
    arguments = experiment.arguments
    split = load_split(arguments.dataset, split_name, arguments.data_root, arguments.metadata_root)
    if split.num_classes != experiment.model.num_classes:
        raise UserError(
            f'{experiment.name}: its network has {experiment.model.num_classes} classes, {arguments.dataset} has '
            f'{split.num_classes}: give the --data_root and --metadata_root that it was trained with'
        )
    return split


def map_makers(experiment, names=None, at=None):
    """{map name: MapMaker} of an experiment; names: None for its head's own map.

    at: the cell (row, column) for maps of interactions (`attribution.Options`).
    """
    names = names or [HEADS[experiment.arguments.attribution_method].own_map]
    arguments = experiment.arguments
    options = replace(map_options(arguments, progress=sys.stderr.isatty()), at=at)
    seed = arguments.seed or 0
    return {name: MapMaker(experiment.model, name, options, seed, arguments.smoothing_ksize) for name in names}


def explain_batch(model, makers, images, chosen, numbers):
    """The `Explanation` of each of the images [B, 3, S, S].

    makers: {map name: MapMaker}; chosen: K classes, -r for an image's r-th most probable; numbers: the images' numbers,
    on which noise depends.
    """
    with torch.no_grad():
        output = model(images)
        probs = output.probs  # [B, C]
    order = probs.argsort(dim=1, descending=True)  # [B, C]
    columns = [order[:, -y - 1] if y < 0 else torch.full_like(order[:, 0], y) for y in chosen]
    classes = torch.stack(columns, dim=1)  # [B, K]
    shared = {}
    maps = {name: maker(images, output, list(classes), numbers, shared=shared) for name, maker in makers.items()}
    rows = zip(probs.tolist(), classes.tolist())
    return [Explanation(p, ys, {name: arrays[b] for name, arrays in maps.items()}) for b, (p, ys) in enumerate(rows)]
