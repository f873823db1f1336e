#!/usr/bin/env python3
"""Writes the split files of a data set from its official files: image_ids, class_labels, image_sizes and localization .txt.

    python scripts/make_metadata.py --dataset=CUB [--data_root=dataset] [--metadata_root=metadata]

CUB (train, test): <data_root>/CUB/{images,image_class_labels,train_test_split,bounding_boxes}.txt, in the order of images.txt.
ILSVRC (train, test): <data_root>/ILSVRC/{train/<synset>,val}; classes are the sorted synsets; boxes and labels of val come from its
XML files. OpenImages (train, val, test): <data_root>/OpenImages/<split>/<class>/, images, masks <id>_m*.png and <id>_ignore.png.
Lines have the protocol's form, without a final newline; which files equal the protocol's byte for byte is printed. The protocol
lists OpenImages in an order of its own, and CUBV2 and ImageNetV2 boxes are only published there: scripts/fetch_metadata.sh.
"""

import argparse
import hashlib
import os
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

from PIL import Image
from tqdm import tqdm

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HASHES = os.path.join(ROOT, 'scripts', 'metadata_hashes.txt')
CLASSES = {'CUB': 200, 'ILSVRC': 1000, 'OpenImages': 100}
XML_FOLDERS = (
    'Annotations/CLS-LOC/val',
    'bbox/val',
    'val',
)  # below <data_root>/ILSVRC, where --annotations is not given


class UserError(Exception):
    """A mistake in the input; its text is the one line the user gets."""


def read_lines(path):
    """The lines of a text file."""
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError as error:
        raise UserError(
            f'cannot read {path} ({error.strerror}): give the right --data_root, or prepare the data '
            '(scripts/prepare_*.sh)'
        ) from None


def read_table(path):
    """{key: rest} of a file of `key rest` lines, in file order."""
    rows = [line.split(None, 1) for line in read_lines(path) if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise UserError(
                f'{path}, line {number}: {" ".join(row)!r} is not a key and a value: restore the official file'
            )
    return dict(rows)


def folders(path):
    """Names of the folders in a folder, sorted by character code."""
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    except OSError as error:
        raise UserError(
            f'cannot read the folder {path} ({error.strerror}): give the right --data_root, or prepare the data '
            '(scripts/prepare_*.sh)'
        ) from None


def files(path, suffix):
    """Names of the files in a folder that end with `suffix`, sorted by character code."""
    return sorted(name for name in os.listdir(path) if name.endswith(suffix))


def image_size(path):
    """(width, height) in pixels, from the file's header."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError) as error:
        raise UserError(f'cannot read the image {path} ({error}): restore it, or give --image_sizes') from None


def read_sizes(root, image_ids, args, split):
    """{image id: (width, height)}, from --image_sizes where it is given, else from the images, many at a time."""
    if args.image_sizes is None:
        with ThreadPoolExecutor(args.workers) as pool:
            sizes = pool.map(image_size, (os.path.join(root, image_id) for image_id in image_ids), chunksize=64)
            return dict(zip(image_ids, tqdm(sizes, f'{split} image sizes', len(image_ids), leave=False, disable=None)))
    path = os.path.join(args.image_sizes, split, 'image_sizes.txt')
    rows = (line.rsplit(',', 2) for line in read_lines(path))
    try:
        sizes = {image_id: (int(width), int(height)) for image_id, width, height in rows}
    except ValueError:
        raise UserError(f'{path} has a line that is not path,width,height: give the folder of a right one') from None
    for image_id in image_ids:
        if image_id not in sizes:
            raise UserError(
                f'{path} has no size for {image_id}: give another --image_sizes, or none to read the images'
            )
    return sizes


def split_files(image_ids, labels, sizes=None, localization=()):
    """{file name: lines} of one split. sizes: {image id: (width, height)}, or None for an empty file."""
    return {
        'image_ids.txt': list(image_ids),
        'class_labels.txt': [f'{image_id},{labels[image_id]}' for image_id in image_ids],
        'image_sizes.txt': [f'{image_id},{sizes[image_id][0]},{sizes[image_id][1]}' for image_id in image_ids]
        if sizes
        else [],
        'localization.txt': list(localization),
    }


def check_classes(found, args, what):
    """Labels are positions among the sorted classes, so a class that is not there would shift all later ones."""
    expected = args.num_classes or CLASSES[args.dataset]
    if len(found) != expected:
        raise UserError(
            f'{what} has {len(found)} classes instead of {expected}: complete it, or give '
            f'--num_classes={len(found)} if this is on purpose'
        )


def box_row(image_id, box, size):
    """A localization line: x0, y0, x1, y1 in pixels, the far sides at most the last pixel."""
    return f'{image_id},{box[0]},{box[1]},{min(box[2], size[0] - 1)},{min(box[3], size[1] - 1)}'


def build_cub(args):
    """{split: {file: lines}} of CUB-200-2011."""
    root = os.path.join(args.data_root, 'CUB')
    names, labels, training, boxes = (
        read_table(os.path.join(root, f'{table}.txt'))
        for table in ('images', 'image_class_labels', 'train_test_split', 'bounding_boxes')
    )
    check_classes(set(labels.values()), args, f'{root}/image_class_labels.txt')
    splits = {}
    for split, flag in (('train', '1'), ('test', '0')):
        try:
            keys = [key for key in names if training[key] == flag]
            image_ids = [names[key] for key in keys]
            corners = [[int(float(value)) for value in boxes[key].split()] for key in keys]
            classes = {names[key]: int(labels[key]) - 1 for key in keys}
        except (KeyError, ValueError) as error:
            raise UserError(
                f'{root}: the tables do not fit each other at {error}: restore the official files'
            ) from None
        sizes = read_sizes(os.path.join(root, 'images'), image_ids, args, split)
        rows = [
            box_row(image_id, (x, y, x + width, y + height), sizes[image_id])
            for image_id, (x, y, width, height) in zip(image_ids, corners)
        ]
        splits[split] = split_files(image_ids, classes, sizes, rows)
    return splits


def xml_objects(path):
    """[(synset, (x0, y0, x1, y1)), ...] of an ILSVRC annotation file, in file order."""
    try:
        return [
            (
                item.findtext('name'),
                tuple(int(item.findtext(f'bndbox/{side}')) for side in ('xmin', 'ymin', 'xmax', 'ymax')),
            )
            for item in ElementTree.parse(path).getroot().iter('object')
        ]
    except (OSError, ElementTree.ParseError, TypeError, ValueError) as error:
        raise UserError(
            f'cannot read the boxes in {path} ({error}): unpack ILSVRC2012_bbox_val_v3.tgz, or give --annotations'
        ) from None


def xml_folder(args):
    """The folder of the validation annotations."""
    given = (
        [args.annotations]
        if args.annotations
        else [os.path.join(args.data_root, 'ILSVRC', name) for name in XML_FOLDERS]
    )
    for folder in given:
        if os.path.isdir(folder) and any(name.endswith('.xml') for name in os.listdir(folder)):
            return folder
    raise UserError(
        f'no ILSVRC2012_val_*.xml in {" or ".join(given)}: unpack ILSVRC2012_bbox_val_v3.tgz '
        '(scripts/prepare_imagenet.sh boxes), or give --annotations'
    )


def devkit_synsets(folder):
    """The synset of each validation image in order, from the development kit's ground truth and its synsets in ID order.

    The order is in data/synsets.txt (one a line, ID 1 first) or in data/meta.mat, for which scipy has to be installed.
    """
    data = os.path.join(folder, 'data') if os.path.isdir(os.path.join(folder, 'data')) else folder
    truth = read_lines(os.path.join(data, 'ILSVRC2012_validation_ground_truth.txt'))
    if os.path.isfile(os.path.join(data, 'synsets.txt')):
        order = dict(enumerate(read_lines(os.path.join(data, 'synsets.txt')), 1))
    else:
        try:
            from scipy.io import loadmat

            rows = loadmat(os.path.join(data, 'meta.mat'), squeeze_me=True)['synsets']
            order = {int(row['ILSVRC2012_ID']): str(row['WNID']) for row in rows}
        except (ImportError, OSError, KeyError, ValueError) as error:
            raise UserError(
                f'cannot read {data}/meta.mat ({error}): install scipy, or leave --devkit out (the XML files name '
                'the classes too)'
            ) from None
    try:
        return [order[int(line)] for line in truth]
    except (KeyError, ValueError) as error:
        raise UserError(
            f'{data}: the ground truth names the class {error}, which the synsets do not have: restore the files'
        ) from None


def validation_rows(image_ids, args):
    """({image id: synset}, {image id: [box, ...]}) of ILSVRC val. The label comes from --devkit, else from the XML files."""
    folder, synsets, boxes = xml_folder(args), {}, {}
    known = devkit_synsets(args.devkit) if args.devkit else None
    if known and len(known) != len(image_ids):
        raise UserError(
            f'{args.devkit} labels {len(known)} images, but there are {len(image_ids)} in val: complete them'
        )
    for number, image_id in enumerate(tqdm(image_ids, 'boxes', leave=False, disable=None)):
        path = os.path.join(folder, os.path.basename(image_id)[: -len('.JPEG')] + '.xml')
        objects = xml_objects(path)
        names = {known[number]} if known else {name for name, _ in objects}
        boxes[image_id] = [box for name, box in objects if name in names]
        if len(names) != 1 or not boxes[image_id]:
            raise UserError(
                f"{path} has boxes of {len(names)} classes and {len(boxes[image_id])} boxes of the image's class: one "
                'class and a box are needed; restore the file, or give the ground truth with --devkit'
            )
        synsets[image_id] = names.pop()
    return synsets, boxes


def build_ilsvrc(args):
    """{split: {file: lines}} of ILSVRC2012; its train sizes and localization are empty in the protocol."""
    root = os.path.join(args.data_root, 'ILSVRC')
    synsets = folders(os.path.join(root, 'train'))
    check_classes(synsets, args, f'{root}/train')
    label = {synset: number for number, synset in enumerate(synsets)}
    folders(os.path.join(root, 'val'))
    test = [f'val/{name}' for name in files(os.path.join(root, 'val'), '.JPEG')]
    if not test:
        raise UserError(
            f'{root}/val holds no ILSVRC2012_val_*.JPEG: the images must lie there, not in folders of their class'
        )
    names, boxes = validation_rows(test, args)
    for image_id, synset in names.items():
        if synset not in label:
            raise UserError(f'{image_id} is of {synset}, which has no folder in {root}/train: complete it')
    train = {
        f'train/{synset}/{name}': label[synset]
        for synset in tqdm(synsets, 'train', leave=False, disable=None)
        for name in files(os.path.join(root, 'train', synset), '.JPEG')
    }
    sizes = read_sizes(root, test, args, 'test')
    rows = [box_row(image_id, box, sizes[image_id]) for image_id in test for box in boxes[image_id]]
    labels = {image_id: label[synset] for image_id, synset in names.items()}
    return {'train': split_files(train, train), 'test': split_files(test, labels, sizes, rows)}


def mask_rows(image_id, names, masks):
    """Localization lines of an OpenImages image: a row a mask, the ignore mask on the first. names: all files of its folder."""
    folder, stem = os.path.split(image_id[: -len('.jpg')])
    ignore = f'{folder}/{stem}_ignore.png' if f'{stem}_ignore.png' in names else ''
    if not masks:
        raise UserError(
            f'{image_id} has no mask {stem}_m*.png: unpack OpenImages_annotations.zip (scripts/prepare_openimages.sh)'
        )
    return [f'{image_id},{folder}/{mask},{"" if row else ignore}' for row, mask in enumerate(masks)]


def build_openimages(args):
    """{split: {file: lines}} of OpenImages30k; its image sizes are empty in the protocol, and so is train's localization."""
    root, splits = os.path.join(args.data_root, 'OpenImages'), {}
    classes = folders(os.path.join(root, 'train'))
    check_classes(classes, args, f'{root}/train')
    for split in ('train', 'val', 'test'):
        labels, rows = {}, []
        for name in folders(os.path.join(root, split)):
            if name not in classes:
                raise UserError(f'{root}/{split}/{name} is of a class that train has not: complete {root}/train')
            found = set(os.listdir(os.path.join(root, split, name)))
            masks = {}
            for mask in sorted(file for file in found if '_m' in file and file.endswith('.png')):
                masks.setdefault(mask.split('_m', 1)[0], []).append(mask)
            for stem in sorted(file[: -len('.jpg')] for file in found if file.endswith('.jpg')):
                image_id = f'{split}/{name}/{stem}.jpg'
                labels[image_id] = classes.index(name)
                rows += mask_rows(image_id, found, masks.get(stem, [])) if split != 'train' else []
        splits[split] = split_files(labels, labels, None, rows)
    return splits


BUILDERS = {'CUB': build_cub, 'ILSVRC': build_ilsvrc, 'OpenImages': build_openimages}


def contents(splits, args):
    """{path: bytes} of all files of all splits; an empty split is a UserError."""
    for split, tables in splits.items():
        if not tables['image_ids.txt']:
            raise UserError(
                f'no images of {args.dataset} {split} below {args.data_root}: give the right --data_root, or prepare '
                'the data (scripts/prepare_*.sh)'
            )
    return {
        os.path.join(args.metadata_root, args.dataset, split, name): '\n'.join(lines).encode()
        for split, tables in splits.items()
        for name, lines in tables.items()
    }


def write_files(table, overwrite):
    """Writes {path: bytes}: all under temporary names, then all renamed. A different file needs `overwrite`."""

    def same(path):
        with open(path, 'rb') as file:
            return file.read() == table[path]

    changed = [path for path in table if not (os.path.isfile(path) and same(path))]
    existing = [path for path in changed if os.path.lexists(path)]
    if existing and not overwrite:
        raise UserError(
            f'{existing[0]} exists with another content ({len(existing)} such files): nothing was written; give '
            '--overwrite to replace them, or another --metadata_root'
        )
    try:
        for path in changed:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path + '.new', 'wb') as file:
                file.write(table[path])
        for path in changed:
            os.replace(path + '.new', path)
    except OSError as error:
        raise UserError(f'cannot write {path} ({error.strerror}): give another --metadata_root') from None
    finally:
        for path in changed:
            if os.path.exists(path + '.new'):
                os.remove(path + '.new')


def report(table, args):
    """Prints each split's count and whether its files are the protocol's, by git blob id."""
    rows = (line.split() for line in read_lines(HASHES) if line[:1] not in ('#', ''))
    known = {row[2]: row[0] for row in rows if len(row) == 3}
    for path, data in table.items():
        name = os.path.relpath(path, args.metadata_root).replace(os.sep, '/')
        blob = hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()
        verdict = (
            "the protocol's, byte for byte" if known.get(f'metadata/{name}') == blob else "not the protocol's file"
        )
        print(f'{path}: {len(data.splitlines())} lines, {verdict}')


def parse(argv):
    """The arguments; a mistake ends the program with one line, exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: parser.exit(2, f'{parser.prog}: error: {message} (see --help)\n')
    parser.add_argument('--dataset', required=True, choices=tuple(BUILDERS))
    parser.add_argument('--data_root', default=os.path.join(ROOT, 'dataset'), help='default: dataset of the checkout')
    parser.add_argument(
        '--metadata_root', default=os.path.join(ROOT, 'metadata'), help='default: metadata of the checkout'
    )
    parser.add_argument(
        '--image_sizes',
        metavar='FOLDER',
        help='take sizes from FOLDER/{train,test}/image_sizes.txt, not from the images',
    )
    parser.add_argument(
        '--annotations', metavar='FOLDER', help="ILSVRC: the folder of the validation images' XML files"
    )
    parser.add_argument('--devkit', metavar='FOLDER', help='ILSVRC: take validation labels from the development kit')
    parser.add_argument('--num_classes', type=int, help="classes expected (default: the data set's)")
    parser.add_argument('--workers', type=int, default=8, help='images read at a time')
    parser.add_argument('--overwrite', action='store_true', help='replace files that have another content')
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f'--workers is {args.workers}: it must be at least 1')
    return args


def main(argv=None):
    """Builds, writes and reports."""
    args = parse(argv)
    try:
        table = contents(BUILDERS[args.dataset](args), args)
        write_files(table, args.overwrite)
        report(table, args)
    except UserError as error:
        print(f'make_metadata.py: error: {error}', file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    main()
