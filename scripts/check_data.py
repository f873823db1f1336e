#!/usr/bin/env python3
"""Checks the images and split files of a data set for missing, unreadable or contradictory data.

    python scripts/check_data.py --dataset=CUB [--data_root=dataset] [--metadata_root=metadata] [--mask_root=dataset]
    python scripts/check_data.py --dataset=folder --data_root=DIR [--metadata_root=save/mine]

The second form: photographs in folders, with their boxes and masks; the split is that of the experiment folder
--metadata_root, or the folders' own. The first form checks: counts against the published ones (unless --own_split);
labels; that every image decodes (--fast: only its header) and has the size in image_sizes.txt; boxes, or masks and
ignore masks, of val and test; for cue localization, the part tables and the segmentations of the test images whose
class has a pair. --splits val test: only what an evaluation needs. Exit code 0: no faults; 1: faults, listed in the
summary; 2: usage error.
"""

import os
import sys
from typing import NamedTuple

import checkout  # noqa: F401 (the checkout's root on the path)
from checks import photographs
from checks.pictures import Fault, Job, check_pictures
from shared import data_parser

from data import folders
from data.metadata import read_boxes, read_image_ids, read_labels, read_masks, read_sizes
from data_loaders import DATASETS, SPLITS
from engine.command import command
from wsol import cub_parts
from wsol.scoring.cues import COUNTS

PART_TABLES = (
    'images.txt',
    'parts/part_locs.txt',
    'attributes/attributes.txt',
    'attributes/class_attribute_labels_continuous.txt',
)
FAR = 0.1  # of a side: CUB has a part that lies a thirtieth of it outside


class SplitFiles(NamedTuple):
    """A split to check."""

    name: str  # train, val or test
    folder: str  # metadata folder
    root: str  # image folder
    image_ids: list


def parsed(parser, folder, faults):
    """parser(folder); a missing or broken file adds a fault and gives None."""
    try:
        return parser(folder)
    except (OSError, ValueError) as error:
        faults.append(Fault('bad metadata', str(error)))
        return None


def choose_root(args, split, image_ids):
    """The candidate image root with most of the first 50 images; the first candidate if tied."""
    roots = [os.path.join(args.data_root, root) for root in DATASETS[args.dataset].roots[split]]
    return max(roots, key=lambda root: sum(os.path.isfile(os.path.join(root, name)) for name in image_ids[:50]))


def check_count(split, info, own_split):
    """Wrong number of images, unless the split is the user's own; duplicate names."""
    published = None if own_split else info.counts.get(split.name)
    found = len(split.image_ids)
    if published not in (None, found):
        yield Fault(
            'wrong count', f'{split.folder}/image_ids.txt lists {found} images instead of the published {published}'
        )
    twice = found - len(set(split.image_ids))
    if twice:
        yield Fault('wrong count', f'{split.folder}/image_ids.txt lists {twice} images twice')


def check_labels(split, labels, num_classes):
    """Missing and out-of-range labels (num_classes None: any from 0)."""
    for image_id in split.image_ids:
        label = labels.get(image_id)
        if label is None:
            yield Fault('no label', f'{split.folder}/class_labels.txt: {image_id}')
        elif label < 0 or (num_classes is not None and label >= num_classes):
            allowed = '0 or more' if num_classes is None else f'0..{num_classes - 1}'
            yield Fault(
                'label out of range', f'{split.folder}/class_labels.txt: {image_id} has {label}, allowed {allowed}'
            )


def image_jobs(split, sizes):
    """Jobs and faults for all images; sizes are unchecked if image_sizes.txt is empty, as in part of the protocol."""
    jobs = [Job(os.path.join(split.root, image_id), 'image', sizes.get(image_id)) for image_id in split.image_ids]
    faults = [
        Fault('no size', f'{split.folder}/image_sizes.txt: {image_id}')
        for image_id in split.image_ids
        if sizes and image_id not in sizes
    ]
    return jobs, faults


def check_boxes(split, boxes, sizes):
    """Images without boxes; boxes that are empty or extend beyond the image."""
    for image_id in split.image_ids:
        if image_id not in boxes:
            yield Fault('no box', f'{split.folder}/localization.txt: {image_id}')
        width, height = sizes.get(image_id, (float('inf'),) * 2)
        for x0, y0, x1, y1 in boxes.get(image_id, ()):
            if not (0 <= x0 <= x1 < width and 0 <= y0 <= y1 < height):
                yield Fault('bad box', f'{split.folder}/localization.txt: {image_id} has {x0},{y0},{x1},{y1}')


def mask_jobs(split, masks, mask_root):
    """Jobs and faults for instance masks and ignore masks."""
    jobs = [
        Job(os.path.join(mask_root, path), 'mask')
        for image_id in split.image_ids
        if image_id in masks
        for path in (*masks[image_id][0], masks[image_id][1])
        if path
    ]
    without = [image_id for image_id in split.image_ids if image_id not in masks]
    return jobs, [Fault('no mask', f'{split.folder}/localization.txt: {image_id}') for image_id in without]


def scored_images(split, labels, parts_root, faults):
    """Images that cue localization scores: those whose class has a pair; all if the pairs cannot be read."""
    num_classes = 1 + max(labels.values(), default=-1)
    every = parsed(lambda folder: cub_parts.class_pairs(folder, num_classes), parts_root, faults)
    if every is None:
        return split.image_ids
    classes = {y for pair in cub_parts.pairs_by_count(every, COUNTS) for y in (pair.a, pair.b)}
    return [image_id for image_id in split.image_ids if labels.get(image_id) in classes]


def check_locations(image_ids, sizes, parts_root, faults):
    """Images without part locations; parts far outside their image."""
    locations = parsed(cub_parts.read_part_locations, parts_root, faults)
    for image_id in image_ids if locations is not None else ():
        if image_id not in locations:
            faults.append(Fault('no part locations', f'{parts_root}/parts/part_locs.txt: {image_id}'))
        size = sizes.get(image_id, (float('inf'),) * 2)
        for part, point in locations.get(image_id, {}).items():
            if any(not -FAR * side <= place <= (1 + FAR) * side for place, side in zip(point, size)):
                where = f'part {part} of {image_id} is at {point}'
                faults.append(Fault('part outside', f'{parts_root}/parts/part_locs.txt: {where}'))


def segmentation_jobs(split, labels, sizes, parts_root):
    """Jobs and faults for the segmentations and part tables of cue localization."""
    missing = [path for path in (os.path.join(parts_root, name) for name in PART_TABLES) if not os.path.isfile(path)]
    faults = [Fault('missing table', path) for path in missing]
    images = scored_images(split, labels, parts_root, [] if missing else faults)
    if not missing:
        check_locations(images, sizes, parts_root, faults)
    names = map(cub_parts.segmentation_name, images)
    jobs = [Job(os.path.join(parts_root, name), 'segmentation', sizes.get(one)) for name, one in zip(names, images)]
    return jobs, faults


def check_split(name, num_classes, args):
    """All faults of a split."""
    info = DATASETS[args.dataset]
    faults = []
    folder = os.path.join(args.metadata_root, args.dataset, name)
    image_ids = parsed(read_image_ids, folder, faults)
    if not image_ids:
        return faults or [Fault('wrong count', f'{folder}/image_ids.txt lists no image')]
    split = SplitFiles(name, folder, choose_root(args, name, image_ids), image_ids)
    sizes = parsed(read_sizes, folder, faults) or {}
    faults += check_count(split, info, args.own_split)
    labels = parsed(read_labels, folder, faults)
    if labels is not None:
        faults += check_labels(split, labels, num_classes)
    jobs, found = image_jobs(split, sizes)
    faults += found
    boxes = name != 'train' and info.localization == 'box'
    truth = parsed(read_boxes if boxes else read_masks, folder, faults) if name != 'train' else None
    if truth is not None and boxes:
        faults += check_boxes(split, truth, sizes)
    elif truth is not None:
        more, found = mask_jobs(split, truth, os.path.join(args.mask_root, args.dataset))
        jobs += more
        faults += found
    if name == 'test' and info.parts:
        more, found = segmentation_jobs(split, labels or {}, sizes, os.path.join(args.data_root, info.parts))
        jobs += more
        faults += found
    return faults + check_pictures(jobs, f'{args.dataset} {name}', args)


def class_count(args):
    """The data set's class count; if undefined, one more than the largest training label, or None."""
    labels = parsed(read_labels, os.path.join(args.metadata_root, args.dataset, 'train'), [])
    return DATASETS[args.dataset].num_classes or (1 + max(labels.values()) if labels else None)


def summary(results, args):
    """Print the faults per split and kind with examples; return their number."""
    for name, faults in results.items():
        print(f'{args.dataset} {name}: {f"{len(faults)} found wrong" if faults else "all right"}')
        for kind in sorted({fault.kind for fault in faults}):
            examples = [fault.what for fault in faults if fault.kind == kind]
            print(f'  {kind}: {len(examples)}')
            shown = examples[: args.show or None]
            print(*(f'    {what}' for what in shown), sep='\n')
            if len(shown) < len(examples):
                print(f'    ... and {len(examples) - len(shown)} more (--show=0 lists all)')
    return sum(map(len, results.values()))


def parse(argv):
    """Parse the arguments; an error ends the program with one line and exit code 2."""
    parser = data_parser(__doc__, DATASETS)
    parser.add_argument('--mask_root', help='folder of the masks: MASK_ROOT/OpenImages; default: the data root')
    parser.add_argument('--splits', nargs='+', default=list(SPLITS), choices=SPLITS, help='default: all')
    parser.add_argument('--workers', type=int, default=4, help='images read at a time')
    parser.add_argument(
        '--own_split', action='store_true', help='the split is your own: do not check the number of images'
    )
    parser.add_argument('--fast', action='store_true', help="read only the images' headers")
    parser.add_argument('--show', type=int, default=20, help='number of faults listed per kind; 0: all')
    args = parser.parse_args(argv)
    args.mask_root = args.mask_root or args.data_root
    if args.workers < 1 or args.show < 0:
        parser.error(f'--workers is {args.workers} and --show {args.show}: allowed are at least 1 and at least 0')
    for flag in ('data_root', 'metadata_root', 'mask_root'):
        folder = getattr(args, flag)
        if not os.path.isdir(folder):
            advice = 'give the right one, or prepare the data (scripts/prepare_*.sh)'
            parser.error(f'--{flag} {folder} is not a folder: {advice}')
    return args


def main(argv=None):
    """Check the splits, print the summary, exit with 1 if there are faults."""
    args = parse(argv)
    if args.dataset == folders.NAME:
        results = photographs.check(args)
    else:
        num_classes = class_count(args)
        results = {name: check_split(name, num_classes, args) for name in args.splits}
    sys.exit(1 if summary(results, args) else 0)


if __name__ == '__main__':
    command(main)
