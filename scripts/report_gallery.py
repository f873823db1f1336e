"""The report's gallery: attribution maps of a few test images as numbers, any two classes of which the page can compare.

The maps come from the experiments' checkpoints, at native size and unscaled. Each is kept as whole numbers times a scale of its
own: 16 bits a value up to SMALL pixels a side (an error of at most 1/65534 of its largest magnitude), 8 bits above (1/254):
gradient maps have the size of the image.
"""

import base64
import io
import os
import sys

import numpy as np
import torch
from munch import Munch
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import inference
import panels
import util
from config import get_configs
from data_loaders import load_split, make_transform, read_image
from wsol.errors import MissingFile, UserError

SMALL = 64
OWN = 'readout'  # stands for the experiment's own map: vanilla of CAM, jointll of CALM
METHODS = (OWN, 'input_grad', 'grad_cam')
UNITS = {
    'vanilla': 'class score f_y',
    'jointll': 'probability p(y,z|x)',
    'gtcond': 'probability p(z|x,y)',
    'saliency': 'probability p(z|x)',
}
MISTAKES = (ValueError, OSError, RuntimeError, TypeError, KeyError)  # torch and damaged arguments raise the last three


def defaults():
    """The arguments that a command without flags has."""
    return get_configs('', [])


def load_run(name, folder, arguments, data_root=None, metadata_root=None):
    """An experiment with its model and test split, as a Munch; what cannot be had is a ValueError or OSError.

    arguments: those of its log. The checkpoint is the folder's last one, else the one that was evaluated.
    """
    if not arguments:
        raise UserError(f'{folder} has no log or result with arguments: train it with main.py')
    own = os.path.join(folder, util.CHECKPOINT.format('last'))
    given = arguments.get('load_checkpoint')
    path = own if os.path.isfile(own) or not given else util.find_checkpoint(given, arguments.get('save_root') or '')
    if not os.path.isfile(path):
        raise MissingFile(f'no checkpoint {path}: train it with main.py')
    args = Munch(
        defaults(),
        **{
            **arguments,
            'load_checkpoint': path,
            'use_load_checkpoint': True,
            'is_different_checkpoint': False,
            'pretrained': False,
            'seed': arguments.get('seed') or 0,
            'smoothing_ksize': 1,
        },
    )
    args.data_root, args.metadata_root = data_root or args.data_root, metadata_root or args.metadata_root
    split = load_split(args.dataset, 'test', args.data_root, args.metadata_root)
    model = inference.load_model(args, split.num_classes, inference.pick_device()).eval()
    return Munch(name=name, args=args, split=split, model=model)


def data_uri(image, size):
    """A Pillow image as the network sees it, a size x size square, as a JPEG data address."""
    buffer = io.BytesIO()
    image.resize((size, size), Image.Resampling.BILINEAR).save(buffer, 'JPEG', quality=85)
    return 'data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode()


def encode(maps):
    """{scales [K], data} of maps [K, h, w]: little-endian whole numbers in base64; value = number * its class's scale.

    NaN is a ValueError.
    """
    if not np.isfinite(maps).all():
        raise UserError('the map has values that are not finite')
    top = 127 if max(maps.shape[1:]) > SMALL else 32767
    scales = np.abs(maps).max(axis=(1, 2)).astype(np.float64) / top  # [K]
    scales[scales == 0] = 1  # a map of zeros
    steps = np.rint(maps / scales[:, None, None]).astype('<i1' if top == 127 else '<i2')  # [K, h, w]
    return {'scales': scales.tolist(), 'data': base64.b64encode(steps.tobytes()).decode()}


def method_maps(run, method, images, output, classes):
    """The page's record of one method: its maps of the offered classes of each image."""
    maker = inference.MapMaker(run.model, Munch(run.args, score_map_process=method))
    maps = maker(images, output, [torch.tensor(row, device=images.device) for row in classes])  # B arrays [K, h, w]
    scalar = 'log p(y|x)' if run.args.attribution_method.startswith('CALM') else 'the logit'
    height, width = maps[0].shape[1:]
    unit = UNITS.get(method, f'|gradient| of {scalar}' if method.endswith('_grad') else f'relevance to {scalar}')
    return {
        'name': method,
        'unit': unit,
        'height': height,
        'width': width,
        'bits': 8 if max(height, width) > SMALL else 16,
        'signed': bool(min(one.min() for one in maps) < 0),
        'maps': [encode(one) for one in maps],
    }


def offered_classes(label, probs, count):
    """The image's own class, then the most probable ones by the mean of the runs. probs: [runs, C]."""
    order = probs.mean(dim=0).argsort(descending=True).tolist()
    return [label, *(y for y in order if y != label)][:count]


def one_set(runs, count, classes, methods, notes):
    """(images, class names, records of the runs) of runs on the same data; what fails is told in `notes`."""
    args, split = runs[0].args, runs[0].split
    count = min(count, len(split.image_ids))
    indices = [(2 * n + 1) * len(split.image_ids) // (2 * count) for n in range(count)]  # spread over the split
    pictures = [read_image(os.path.join(split.root, split.image_ids[index])) for index in indices]
    transform = make_transform(False, crop_size=args.crop_size)
    device = next(runs[0].model.parameters()).device
    batch = torch.stack([transform(picture) for picture in pictures]).to(device)  # [B, 3, S, S]
    with torch.no_grad():
        outputs = [run.model(batch) for run in runs]
    probs = torch.stack([output.probs for output in outputs])  # [runs, B, C]
    offered = [offered_classes(split.labels[index], probs[:, b], classes) for b, index in enumerate(indices)]
    records = []
    for run, output, p in zip(runs, outputs, probs):
        if not torch.isfinite(p).all():
            notes.append(f'{run.name}: its probabilities are not finite')
            continue
        own = 'jointll' if run.args.attribution_method.startswith('CALM') else 'vanilla'
        found = []
        for method in dict.fromkeys(own if method == OWN else method for method in methods):
            try:
                found.append(method_maps(run, method, batch, output, offered))
            except MISTAKES as error:
                notes.append(f'{run.name}, {method}: {error}')
        records.append(
            {
                'name': run.name,
                'method': run.args.attribution_method,
                'predicted': p.argmax(dim=1).tolist(),
                'probs': [p[b, row].tolist() for b, row in enumerate(offered)],
                'maps': found,
            }
        )
    names = panels.class_names(args.dataset, split.num_classes, (args.data_root, args.metadata_root))
    used = sorted({y for row in offered for y in row} | {y for record in records for y in record['predicted']})
    images = [
        {
            'id': split.image_ids[index],
            'label': split.labels[index],
            'classes': row,
            'picture': data_uri(picture, args.crop_size),
        }
        for index, row, picture in zip(indices, offered, pictures)
    ]
    return (
        images,
        {str(y): names[y] if names else f'class {y}' for y in used},
        [record for record in records if record['maps']],
    )


def build(experiments, count, classes, methods, data_root=None, metadata_root=None):
    """(the page's gallery data, notes on what is left out). experiments: [(name, folder, arguments)].

    {sets: [{images: [{id, label, classes, picture}], names: {class: name}}], runs: [{name, set, predicted, probs, maps: [{name, unit,
    height, width, bits, signed, maps: [{scales, data}]}]}]}; the maps of an image are those of its `classes`, in their order.
    """
    sets, notes, data = {}, [], {'sets': [], 'runs': []}
    for name, folder, arguments in experiments:
        try:
            run = load_run(name, folder, arguments, data_root, metadata_root)
            key = tuple(run.args[word] for word in ('dataset', 'data_root', 'metadata_root', 'crop_size'))
            sets.setdefault(key, []).append(run)
        except MISTAKES as error:
            notes.append(f'{name}: {error}')
    for runs in sets.values():
        try:
            images, names, records = one_set(runs, count, classes, methods, notes)
        except MISTAKES as error:
            notes.append(f'{", ".join(run.name for run in runs)}: {error}')
            continue
        if records:
            data['runs'] += [{**record, 'set': len(data['sets'])} for record in records]
            data['sets'].append({'images': images, 'names': names})
    return data, notes
