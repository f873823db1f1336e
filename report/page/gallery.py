"""The page's gallery: attribution maps of a few test images, of which the page compares any two classes.

The maps come from the experiments' checkpoints, at native size and unscaled. Each is stored as integers times a scale:
16 bits up to SMALL pixels per side (error at most 1/65534 of the largest magnitude), 8 bits above (1/254), as gradient
maps have the size of the image.
"""

import base64
import io
import os
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import util
from data import folders
from data_loaders import Split, read_image
from engine import models
from engine.experiments import Experiment, load_experiment, load_experiment_split, map_makers
from wsol import attribution
from wsol.errors import MissingFile, UserError
from wsol.network import HEADS
from wsol.preprocessing import make_transform

from ..results import was_trained

SMALL = 64
OWN = 'readout'  # the experiment's own map: vanilla of CAM, jointll of CALM
# Errors that leave an experiment out of the gallery.
UNUSABLE = (UserError, OSError, UnicodeDecodeError)


class Exhibit(NamedTuple):
    """An experiment and its test split."""

    experiment: Experiment
    split: Split


class Pictures(NamedTuple):
    """The gallery's images of one data set."""

    numbers: list  # of the images in the split
    pictures: list  # Pillow images


def batch_tensor(batch, experiment):
    """The input [B, 3, S, S] of an experiment's network, on its device."""
    size = experiment.arguments.crop_size
    transform = make_transform(False, crop_size=size, preprocessing=experiment.model.preprocessing)
    images = torch.stack([transform(picture) for picture in batch.pictures])
    return images.to(next(experiment.model.parameters()).device)


def check_maps(names):
    """UserError for a name that is neither a map nor OWN."""
    for name in names:
        if name != OWN:
            attribution.lookup(name)


def load_exhibit(run, data_root=None, metadata_root=None):
    """The `Exhibit` of a `results.RunFolder`, from its last checkpoint, else the evaluated one; errors: UNUSABLE.

    A training's own --load_checkpoint is where it started, so it is no substitute for a missing last checkpoint.
    """
    if not run.arguments:
        raise UserError(f'{run.folder} has no log or result with arguments: train it with main.py')
    path = os.path.join(run.folder, util.CHECKPOINT.format('last'))
    evaluated = None if was_trained(run) else run.arguments.get('load_checkpoint')
    if not os.path.isfile(path):
        if not evaluated:
            raise MissingFile(f'no checkpoint {path}: train it with main.py')
        path = evaluated
    roots = {'data_root': data_root, 'metadata_root': metadata_root}
    arguments = {
        **run.arguments,
        **{name: root for name, root in roots.items() if root},
        'smoothing_ksize': 1,  # exact maps, whatever the training flags
        **models.EXACT._asdict(),
    }
    save_root = run.arguments.get('save_root') or ''
    experiment = load_experiment(path, arguments, save_root=save_root, name=run.name)
    return Exhibit(experiment, load_experiment_split(experiment, 'test'))


def data_of(exhibit):
    """A key that is equal for exhibits on the same data; for photographs it contains the split."""
    flags = exhibit.experiment.arguments
    same = flags.metadata_root
    if flags.dataset == folders.NAME:
        same = (*exhibit.split.image_ids, *exhibit.split.labels)
    return flags.dataset, flags.data_root, same, flags.crop_size


def data_uri(image, size):
    """A Pillow image, resized to a size x size square, as a JPEG data URI."""
    buffer = io.BytesIO()
    image.resize((size, size), Image.Resampling.BILINEAR).save(buffer, 'JPEG', quality=85)
    return 'data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode()


def encode(maps):
    """{scales [K], data} of maps [K, h, w]: little-endian integers in base64; value = integer * scale of its class.

    UserError for values that are not finite.
    """
    if not np.isfinite(maps).all():
        raise UserError('the map has values that are not finite')
    top = 127 if max(maps.shape[1:]) > SMALL else 32767
    scales = np.abs(maps).max(axis=(1, 2)).astype(np.float64) / top  # [K]
    scales[scales == 0] = 1  # a map of zeros
    steps = np.rint(maps / scales[:, None, None]).astype('<i1' if top == 127 else '<i2')  # [K, h, w]
    return {'scales': scales.tolist(), 'data': base64.b64encode(steps.tobytes()).decode()}


def map_record(experiment, map_name, batch, output, offered):
    """The page's record of one map, for the offered classes of each image."""
    [maker] = map_makers(experiment, [map_name]).values()
    images = batch_tensor(batch, experiment)
    classes = [torch.tensor(row, device=images.device) for row in offered]
    maps = maker(images, output, classes, batch.numbers)  # B arrays [K, h, w]
    height, width = maps[0].shape[1:]
    return {
        'name': map_name,
        'unit': attribution.unit_of(map_name, experiment.arguments.attribution_method),
        'height': height,
        'width': width,
        'bits': 8 if max(height, width) > SMALL else 16,
        'signed': bool(min(one.min() for one in maps) < 0),
        'maps': [encode(one) for one in maps],
    }


def run_record(experiment, map_names, batch, output, offered, notes):
    """The page's record of one experiment; errors are added to `notes`."""
    head_name = experiment.arguments.attribution_method
    maps = []
    for name in dict.fromkeys(HEADS[head_name].own_map if name == OWN else name for name in map_names):
        try:
            maps.append(map_record(experiment, name, batch, output, offered))
        except UserError as error:
            notes.append(f'{experiment.name}, {name}: {error}')
    probs = output.probs
    return {
        'name': experiment.name,
        'method': head_name,
        'predicted': probs.argmax(dim=1).tolist(),
        'probs': [probs[b, row].tolist() for b, row in enumerate(offered)],
        'maps': maps,
    }


def offered_classes(label, probs, count):
    """The image's label, then the most probable classes on average over the runs; probs: [runs, C]."""
    order = probs.mean(dim=0).argsort(descending=True).tolist()
    return [label, *(y for y in order if y != label)][:count]


def load_batch(split, count):
    """The `Pictures` of `count` evenly spaced images of a split."""
    total = len(split.image_ids)
    count = min(count, total)
    numbers = [(2 * n + 1) * total // (2 * count) for n in range(count)]
    paths = [os.path.join(split.root, split.image_ids[number]) for number in numbers]
    pictures = [read_image(path, split.photographs) for path in paths]
    return Pictures(numbers, pictures)


def set_record(split, batch, offered, size, names, used):
    """The page's record of the images of one data set and the names of the classes `used`."""
    images = [
        {
            'id': split.image_ids[number],
            'label': split.labels[number],
            'classes': row,
            'picture': data_uri(picture, size),
        }
        for number, row, picture in zip(batch.numbers, offered, batch.pictures)
    ]
    return {'images': images, 'names': {str(y): names[y] if names else f'class {y}' for y in sorted(used)}}


def show_set(exhibits, images, classes, map_names, notes):
    """(record of the set, records of its runs) of exhibits on the same data; errors are added to `notes`."""
    experiment, split = exhibits[0]
    size = experiment.arguments.crop_size
    batch = load_batch(split, images)
    with torch.no_grad():
        outputs = [one.experiment.model(batch_tensor(batch, one.experiment)) for one in exhibits]
        probs = torch.stack([output.probs for output in outputs])  # [runs, B, C]
    offered = [offered_classes(split.labels[number], probs[:, b], classes) for b, number in enumerate(batch.numbers)]
    records = []
    for exhibit, output in zip(exhibits, outputs):
        if torch.isfinite(output.probs).all():
            records.append(run_record(exhibit.experiment, map_names, batch, output, offered, notes))
        else:
            notes.append(f'{exhibit.experiment.name}: its probabilities are not finite')
    used = {y for row in offered for y in row} | {y for record in records for y in record['predicted']}
    described = set_record(split, batch, offered, size, experiment.class_names, used)
    return described, [record for record in records if record['maps']]


def build_gallery(runs, *, images, classes, maps, data_root=None, metadata_root=None):
    """(the page's gallery data, notes on omissions).

    runs: `results.RunFolder`s; images: number of test images; classes: number offered for each; maps: names, possibly
    OWN; data_root, metadata_root: None for each experiment's own. The data:
    {sets: [{images: [{id, label, classes, picture}], names: {class: name}}],
    runs: [{name, method, set, predicted, probs,
    maps: [{name, unit, height, width, bits, signed, maps: [{scales, data}]}]}]};
    the maps of an image are those of its `classes`, in their order.
    """
    exhibits = {}  # {data: exhibits}
    notes = []
    data = {'sets': [], 'runs': []}
    for run in runs:
        try:
            exhibit = load_exhibit(run, data_root, metadata_root)
        except UNUSABLE as error:
            notes.append(f'{run.name}: {error}')
            continue
        exhibits.setdefault(data_of(exhibit), []).append(exhibit)
    for together in exhibits.values():
        try:
            described, records = show_set(together, images, classes, maps, notes)
        except UNUSABLE as error:
            notes.append(f'{", ".join(exhibit.experiment.name for exhibit in together)}: {error}')
            continue
        if records:
            data['runs'] += [{**record, 'set': len(data['sets'])} for record in records]
            data['sets'].append(described)
    return data, notes
