"""Reading official files, and the lines common to all data sets. Unreadable files raise UserError."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from data.texts import read_text
from wsol.errors import UserError
from wsol.photographs import opened

PREPARE = 'give the right --data_root, or prepare the data (scripts/prepare_*.sh)'


class Options(NamedTuple):
    """Command-line options other than the folders."""

    num_classes: int  # expected number of classes
    image_sizes: str | None = None  # folder of split files with sizes; None: read the images
    annotations: str | None = None  # ILSVRC: folder of the validation images' XML files
    devkit: str | None = None  # ILSVRC: development kit with validation labels
    workers: int = 8  # images read in parallel


def read_lines(path):
    """Lines of a text file."""
    try:
        return read_text(path).splitlines()
    except UserError as error:
        raise UserError(f'{error}: {PREPARE}') from None


def read_table(path):
    """{key: rest} from lines `key rest`, in file order."""
    rows = [line.split(None, 1) for line in read_lines(path) if line.strip()]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise UserError(
                f'{path}, line {number}: {" ".join(row)!r} is not a key and a value: restore the official file'
            )
    return dict(rows)


def folders(path):
    """Names of the subfolders of a folder, sorted by character code."""
    try:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    except OSError as error:
        raise UserError(f'cannot read the folder {path} ({error.strerror}): {PREPARE}') from None


def files(path, suffix):
    """Names of the files in a folder with this suffix, sorted by character code."""
    return sorted(name for name in os.listdir(path) if name.endswith(suffix))


def image_size(path):
    """(width, height) in px, from the file's header."""
    try:
        with opened(path) as image:
            return image.size
    except UserError as error:
        raise UserError(f'{error}, or give --image_sizes') from None


def listed_sizes(path, image_ids):
    """{image id: (width, height)} from an image_sizes.txt that must contain all ids."""
    rows = (line.rsplit(',', 2) for line in read_lines(path))
    try:
        sizes = {image_id: (int(width), int(height)) for image_id, width, height in rows}
    except ValueError:
        raise UserError(f'{path} has a line that is not path,width,height: give the folder of a valid one') from None
    for image_id in image_ids:
        if image_id not in sizes:
            raise UserError(
                f'{path} has no size for {image_id}: give another --image_sizes, or none to read the images'
            )
    return sizes


def read_sizes(root, image_ids, split, options):
    """{image id: (width, height)} from --image_sizes if given, else from the images, in parallel."""
    if options.image_sizes is not None:
        return listed_sizes(os.path.join(options.image_sizes, split, 'image_sizes.txt'), image_ids)
    with ThreadPoolExecutor(options.workers) as pool:
        sizes = pool.map(image_size, (os.path.join(root, image_id) for image_id in image_ids), chunksize=64)
        return dict(zip(image_ids, tqdm(sizes, f'{split} image sizes', len(image_ids), leave=False, disable=None)))


def check_classes(found, expected, what):
    """Raise UserError for a wrong number of classes: labels are ranks, so a missing class would shift others."""
    if len(found) != expected:
        raise UserError(
            f'{what} has {len(found)} classes instead of {expected}: complete it, or give '
            f'--num_classes={len(found)} if this is intended'
        )


def box_row(image_id, box, size):
    """A localization line: x0, y0, x1, y1 in px, the far sides at most the last pixel."""
    return f'{image_id},{box[0]},{box[1]},{min(box[2], size[0] - 1)},{min(box[3], size[1] - 1)}'


def split_files(image_ids, labels, sizes=None, localization=()):
    """{file name: lines} of one split. sizes: {image id: (width, height)}, or None for an empty file."""
    size_rows = [f'{image_id},{sizes[image_id][0]},{sizes[image_id][1]}' for image_id in image_ids] if sizes else []
    return {
        'image_ids.txt': list(image_ids),
        'class_labels.txt': [f'{image_id},{labels[image_id]}' for image_id in image_ids],
        'image_sizes.txt': size_rows,
        'localization.txt': list(localization),
    }
