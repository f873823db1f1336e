#!/usr/bin/env python3
"""Writes a data set's split files image_ids, class_labels, image_sizes, localization .txt from official files.

    python scripts/make_metadata.py --dataset=CUB [--data_root=dataset] [--metadata_root=metadata]

CUB (train, test): <data_root>/CUB/{images,image_class_labels,train_test_split,bounding_boxes}.txt, in images.txt's
order. ILSVRC (train, test): <data_root>/ILSVRC/{train/<synset>,val}; classes are the sorted synsets; boxes and labels
of val come from its XML files. OpenImages (train, val, test): <data_root>/OpenImages/<split>/<class>/ with images,
masks <id>_m*.png and <id>_ignore.png. The format is the protocol's, without a final newline; the output says which
files equal the protocol's byte for byte. The protocol's order of OpenImages and the CUBV2 and ImageNetV2 boxes cannot
be derived: use scripts/fetch_metadata.sh.
"""

import os

from checkout import ROOT
from shared import data_parser, git_blob
from split_files import cub, ilsvrc, openimages
from split_files.reading import PREPARE, Options, read_lines

from data_loaders import DATASETS
from engine.command import command
from wsol.errors import AlreadyThere, Unwritable, UserError

HASHES = os.path.join(ROOT, 'scripts', 'metadata_hashes.txt')
BUILDERS = {'CUB': cub.build, 'ILSVRC': ilsvrc.build, 'OpenImages': openimages.build}


def contents(splits, args):
    """{path: bytes} of all files of all splits; raises UserError for an empty split."""
    for split, tables in splits.items():
        if not tables['image_ids.txt']:
            raise UserError(f'no images of {args.dataset} {split} below {args.data_root}: {PREPARE}')
    return {
        os.path.join(args.metadata_root, args.dataset, split, name): '\n'.join(lines).encode()
        for split, tables in splits.items()
        for name, lines in tables.items()
    }


def holds(path, data):
    """Does the file exist with this content?"""
    if not os.path.isfile(path):
        return False
    with open(path, 'rb') as file:
        return file.read() == data


def write_files(table, overwrite):
    """Write {path: bytes} under temporary names, then rename all. Replacing a different file needs `overwrite`."""
    changed = [path for path in table if not holds(path, table[path])]
    existing = [path for path in changed if os.path.lexists(path)]
    if existing and not overwrite:
        raise AlreadyThere(
            f'{existing[0]} exists with different content ({len(existing)} such files): nothing was written; give '
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
        raise Unwritable(f'cannot write {path} ({error.strerror}): give another --metadata_root') from None
    finally:
        for path in changed:
            if os.path.exists(path + '.new'):
                os.remove(path + '.new')


def report(table, metadata_root):
    """Print each file's line count and whether it equals the protocol's, by git blob id."""
    rows = (line.split() for line in read_lines(HASHES) if line[:1] not in ('#', ''))
    known = {row[2]: row[0] for row in rows if len(row) == 3}
    for path, data in table.items():
        name = os.path.relpath(path, metadata_root).replace(os.sep, '/')
        equal = known.get(f'metadata/{name}') == git_blob(data)
        verdict = "the protocol's, byte for byte" if equal else "not the protocol's file"
        print(f'{path}: {len(data.splitlines())} lines, {verdict}')


def parse(argv):
    """Parse the arguments; an error ends the program with one line and exit code 2."""
    parser = data_parser(__doc__, BUILDERS)
    parser.add_argument(
        '--image_sizes',
        metavar='FOLDER',
        help='take sizes from FOLDER/{train,test}/image_sizes.txt, not from the images',
    )
    parser.add_argument('--annotations', metavar='FOLDER', help="ILSVRC: folder of the validation images' XML files")
    parser.add_argument('--devkit', metavar='FOLDER', help='ILSVRC: take validation labels from the development kit')
    parser.add_argument('--num_classes', type=int, help="expected number of classes (default: the data set's)")
    parser.add_argument('--workers', type=int, default=8, help='images read at a time')
    parser.add_argument('--overwrite', action='store_true', help='replace files that have different content')
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f'--workers is {args.workers}: it must be at least 1')
    return args


def main(argv=None):
    """Build and write the files and report on them."""
    args = parse(argv)
    expected = args.num_classes or DATASETS[args.dataset].num_classes
    options = Options(expected, args.image_sizes, args.annotations, args.devkit, args.workers)
    splits = BUILDERS[args.dataset](os.path.join(args.data_root, args.dataset), options)
    table = contents(splits, args)
    write_files(table, args.overwrite)
    report(table, args.metadata_root)


if __name__ == '__main__':
    command(main)
