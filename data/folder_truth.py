"""True boxes and masks of a data set that is a folder of photographs (folders.py): DIR/boxes.csv or DIR/masks/."""

import os

from wsol.errors import MissingFile, UserError
from wsol.masks import check_mask_size
from wsol.photographs import photograph_size

from .texts import read_csv

BOXES = 'boxes.csv'  # rows path,x0,y0,x1,y1: path below DIR, box in pixels of the photograph
MASKS = 'masks'  # folder of <path>.png, with or without the photograph's extension before .png


def truth_kind(root):
    """The kind of ground truth in DIR: 'box', 'mask' or None."""
    if os.path.isfile(os.path.join(root, BOXES)):
        return 'box'
    return 'mask' if os.path.isdir(os.path.join(root, MASKS)) else None


def read_boxes(root):
    """{path: [(line, (x0, y0, x1, y1)), ...]} of boxes.csv; {} if there is none."""
    path = os.path.join(root, BOXES)
    table = {}
    if not os.path.isfile(path):
        return table
    for number, (image_id, *cells) in read_csv(path, ('path', 'x0', 'y0', 'x1', 'y1'), joined=True):
        try:
            table.setdefault(image_id, []).append((number, tuple(map(int, cells))))
        except ValueError:
            raise UserError(f'{path}, line {number}: not path,x0,y0,x1,y1 with integer coordinates') from None
    return table


def checked_boxes(root, image_id, size, rows):
    """The boxes of a photograph of size (width, height), from its rows of `read_boxes`; UserError if one is outside."""
    for number, box in rows:
        check_box(f'{os.path.join(root, BOXES)}, line {number}', image_id, box, size)
    return [box for _, box in rows]


def check_box(where, name, box, size):
    """UserError, beginning with `where`, for a box (x0, y0, x1, y1) that is not inside an image (width, height)."""
    x0, y0, x1, y1 = box
    width, height = size
    if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
        raise UserError(
            f'{where}: {x0:g},{y0:g},{x1:g},{y1:g} is not a box of {name}, which is {width} x {height} pixels: give '
            'x0,y0,x1,y1 with x0 <= x1 and y0 <= y1 inside it'
        )


def boxes(root, image_ids):
    """{path: (boxes [(x0, y0, x1, y1), ...], (width, height))}; UserError for an image without a box."""
    table = read_boxes(root)
    missing = [image_id for image_id in image_ids if image_id not in table]
    if missing:
        raise UserError(
            f'{os.path.join(root, BOXES)} has no row for {missing[0]} ({len(missing)} images lack one): add it'
        )
    sizes = {image_id: photograph_size(os.path.join(root, image_id)) for image_id in image_ids}
    return {one: (checked_boxes(root, one, size, table[one]), size) for one, size in sizes.items()}


def mask_names(image_id):
    """The two paths, below DIR, at which a photograph's mask may lie."""
    return [f'{MASKS}/{image_id}.png', f'{MASKS}/{os.path.splitext(image_id)[0]}.png']


def checked_mask(root, image_id, size):
    """The path, below `root`, of a photograph's mask; UserError if it is missing or not of `size` (width, height)."""
    names = mask_names(image_id)
    found = [name for name in names if os.path.isfile(os.path.join(root, name))]
    if not found:
        raise MissingFile(f'no mask of {image_id} in {root}: neither {" nor ".join(names)} is a file')
    check_mask_size(os.path.join(root, found[0]), size)
    return found[0]


def masks(root, image_ids):
    """{path: ([mask path below `root`], None)}, for `pixels.read_ground_truth`."""
    sizes = {image_id: photograph_size(os.path.join(root, image_id)) for image_id in image_ids}
    return {one: ([checked_mask(root, one, size)], None) for one, size in sizes.items()}
