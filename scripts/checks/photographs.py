"""Checks for photographs in folders (--dataset=folder): split, photographs, boxes and masks."""

import os
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from data import folders
from wsol.errors import MissingFile, UserError
from wsol.masks import read_region
from wsol.photographs import photograph_size, read_photograph

from .pictures import Fault


def check(args):
    """{split: faults} for the existing splits among --splits."""
    try:
        images = images_of(args.data_root, args.metadata_root)
        boxes = folders.read_boxes(args.data_root)
    except UserError as error:
        return {'folders': [Fault('cannot be trained on', str(error))]}
    for name in args.splits:
        if name not in images:
            print(f'folder {name}: no such folder; training splits it off train')
    return {name: check_split(name, images[name], boxes, args) for name in args.splits if name in images}


def images_of(root, metadata_root):
    """{split: [path below `root`, ...]}: an experiment's split, or the folders' content."""
    split = folders.read(metadata_root)
    if split:
        return split.images
    folders.make(root, 0)  # raises whatever a training would raise
    return {name: [one for row in found.values() for one in row] for name, found in folders.scan(root).items()}


def check_split(name, image_ids, boxes, args):
    """Faults of a split; boxes: {path: its rows}."""
    needed = folders.truth_kind(args.data_root) if name != 'train' else None
    with ThreadPoolExecutor(args.workers) as pool:
        results = pool.map(lambda one: list(check_photograph(one, boxes, needed, args)), image_ids)
        shown = tqdm(results, f'folder {name}', len(image_ids), leave=False, disable=None)
        return [fault for faults in shown for fault in faults]


def check_photograph(image_id, boxes, needed, args):
    """Faults of a photograph, its boxes and its mask; needed: required ground truth, 'box' or 'mask'."""
    root = args.data_root
    path = os.path.join(root, image_id)
    if not os.path.isfile(path):
        yield Fault('missing image', path)
        return
    try:
        size = photograph_size(path) if args.fast else read_photograph(path).size
    except UserError as error:
        yield Fault('unreadable image', str(error))
        return
    if needed == 'box' and image_id not in boxes:
        yield Fault('no box', f'{folders.BOXES}: {image_id}')
    try:
        folders.checked_boxes(root, image_id, size, boxes.get(image_id, []))
    except UserError as error:
        yield Fault('bad box', str(error))
    try:
        mask = folders.checked_mask(root, image_id, size)
        if not args.fast:
            read_region(os.path.join(root, mask))
    except MissingFile as error:
        if needed == 'mask':
            yield Fault('no mask', str(error))
    except UserError as error:
        yield Fault('bad mask', str(error))
