"""Checks for photographs in folders (--dataset=folder): split, photographs, boxes and masks."""

import os
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from data import folder_truth, folders
from data.texts import listed
from wsol.errors import MissingFile, UserError
from wsol.masks import read_region
from wsol.photographs import photograph_size, read_photograph

from .pictures import Fault

ABSENT = 'no such folder; training splits it off train'
TRUTH = {  # by `folder_truth.truth_kind`
    'box': f'true boxes: {folder_truth.BOXES}',
    'mask': f'true masks: {folder_truth.MASKS}/',
    None: f'neither {folder_truth.BOXES} nor {folder_truth.MASKS}/: localization cannot be scored',
}


def check(args):
    """{split: faults} for the existing splits among --splits; prints what each split holds, and what is not read."""
    root = args.data_root
    try:
        images = images_of(root, args.metadata_root)
        boxes = folder_truth.read_boxes(root)
    except UserError as error:
        return {'folders': [Fault('cannot be trained on', str(error))]}
    line = folders.not_read_line(root)
    if line:
        print(line)
    every = [one for row in images.values() for one in row]
    for name in args.splits:
        print(f'folder {name}: {content(images[name], every)}' if name in images else f'folder {name}: {ABSENT}')
    print(TRUTH[folder_truth.truth_kind(root)])
    results = {name: check_split(name, images[name], boxes, args) for name in args.splits if name in images}
    stray = [*stray_boxes(root, boxes), *stray_masks(root)]
    return {**results, 'boxes and masks': stray} if stray else results


def content(image_ids, every):
    """How many photographs and classes a split has, and which classes of `every` photograph it lacks."""
    known = {one.split('/')[1] for one in every}
    lacking = sorted(known - {one.split('/')[1] for one in image_ids})
    if not lacking:
        return f'{len(image_ids)} photographs of {len(known)} classes'
    found = len(known) - len(lacking)
    return f'{len(image_ids)} photographs of {found} of {len(known)} classes, none of {listed(lacking, 5)}'


def stray_boxes(root, boxes):
    """Rows of boxes.csv that name no photograph."""
    for image_id, rows in boxes.items():
        if not os.path.isfile(os.path.join(root, image_id)):
            yield Fault('no photograph', f'{folder_truth.BOXES}, line {rows[0][0]}: {image_id}')


def stray_masks(root):
    """Files below masks/ that are under the path of no photograph."""
    photographs = {one for split in folders.SPLITS for one in folders.images_below(root, split)}
    names = {name for one in photographs for name in folder_truth.mask_names(one)}
    for path in folders.files_below(os.path.join(root, folder_truth.MASKS)):
        name = os.path.relpath(path, root).replace(os.sep, '/')
        if name not in names:
            place = f'{folder_truth.MASKS}/PATH.png'
            yield Fault('no photograph', f'{name}: a mask is {place}, PATH a photograph below {root}')


def images_of(root, metadata_root):
    """{split: [path below `root`, ...]}: an experiment's split, or the folders' content."""
    split = folders.read(metadata_root)
    if split:
        return split.images
    folders.make(root, 0)  # raises whatever a training would raise
    return {name: [one for row in found.values() for one in row] for name, found in folders.scan(root).items()}


def check_split(name, image_ids, boxes, args):
    """Faults of a split; boxes: {path: its rows}."""
    needed = folder_truth.truth_kind(args.data_root) if name != 'train' else None
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
        yield Fault('no box', f'{folder_truth.BOXES}: {image_id}')
    try:
        folder_truth.checked_boxes(root, image_id, size, boxes.get(image_id, []))
    except UserError as error:
        yield Fault('bad box', str(error))
    try:
        mask = folder_truth.checked_mask(root, image_id, size)
        if not args.fast:
            read_region(os.path.join(root, mask))
    except MissingFile as error:
        if needed == 'mask':
            yield Fault('no mask', str(error))
    except UserError as error:
        yield Fault('bad mask', str(error))
