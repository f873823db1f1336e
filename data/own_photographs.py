"""The user's own photographs (--images) with their ground truth: classes, boxes or masks.

A photograph is named by its path below their common folder (photographs.unique_names), such as 'cats/1.jpg'.
"""

import hashlib
import os
from typing import NamedTuple

import numpy as np
from PIL import Image

from wsol.errors import MissingFile, UserError
from wsol.masks import check_mask_size, read_region
from wsol.photographs import photograph_size
from wsol.preprocessing import placement
from wsol.scoring import regions

from .classes import parse_class
from .folder_truth import check_box
from .photographs import find_photographs, unique_names
from .texts import listed, read_csv, read_text


class Collection(NamedTuple):
    """Photographs and their ground truth."""

    files: list  # paths
    names: list  # of the files, as in tables
    sizes: list  # (width, height) in pixels, upright; None if a file cannot be read
    boxes: list | None  # for each photograph [(x0, y0, x1, y1), ...] in its pixels, x1 and y1 included
    masks: list | None  # for each photograph the path of its mask

    @property
    def truth(self):
        """The kind of ground truth: 'box', 'mask' or None."""
        return 'box' if self.boxes else 'mask' if self.masks else None


def collect(patterns, boxes=None, masks=None):
    """The `Collection` of --images; boxes: a file of boxes, masks: a folder of masks. Mistakes are a UserError."""
    if boxes and masks:
        raise UserError('--boxes and --masks: give one of them')
    files = find_photographs(patterns)
    names = unique_names(files)
    sizes = [size_or_none(path) for path in files]
    own = Collection(files, names, sizes, None, None)
    if boxes:
        own = own._replace(boxes=read_boxes(boxes, own))
    if masks:
        own = own._replace(masks=find_masks(masks, own))
    return own


def digest(own, tables):
    """A digest of a collection: names and sizes of its files, and the contents of the tables {flag: path or None}."""
    found = hashlib.sha256()
    for name, path in [*zip(own.names, own.files), *((path, path) for path in own.masks or [])]:
        found.update(f'{os.path.basename(name)} {os.path.getsize(path)}\n'.encode(errors='surrogateescape'))
    for flag, path in tables.items():
        found.update(f'{flag}\n{read_text(path) if path else ""}'.encode())
    return found.hexdigest()[:16]


def size_or_none(path):
    """The `photograph_size` of a file; None if it cannot be read, which is reported when it is loaded."""
    try:
        return photograph_size(path)
    except UserError:
        return None


def _finder(own):
    """A function: name in a table (path below the common folder, or file name) -> number of the photograph.

    -1: several photographs have this file name; None: there is none.
    """
    numbers = {}
    for number, name in enumerate(own.names):
        base = os.path.basename(name)
        numbers[base] = -1 if base in numbers else number
    numbers.update({name: number for number, name in enumerate(own.names)})
    return lambda name: numbers.get(os.path.normpath(name))


def _number(find, name, where):
    number = find(name)
    if number is None or number < 0:
        what = 'is not a photograph' if number is None else 'is the name of several photographs'
        raise UserError(f'{where}: {name!r} {what} of --images: give its path below their common folder')
    return number


def _in_order(table, own, path):
    """The entries of a table {number: entry} for all photographs; UserError if one is missing."""
    missing = [name for number, name in enumerate(own.names) if number not in table]
    if missing:
        one = listed(missing, 1)
        raise UserError(f'{path} has no line for {one}: add it, or leave the photograph out of --images')
    return [table[number] for number in range(len(own.names))]


def read_labels(path, own, num_classes, names):
    """The class number of each photograph, from lines file,class; a class is a number from 0 or one of `names`."""
    find = _finder(own)
    table = {}
    for line, (file, word) in read_csv(path, ('file', 'class')):
        where = f'{path}, line {line}'
        number = _number(find, file, where)
        if number in table:
            raise UserError(f'{where}: a second class for {file}')
        try:
            table[number] = parse_class(word, num_classes, names)
        except UserError as error:
            raise UserError(f'{where}: {error}') from None
        if table[number] < 0:
            raise UserError(f'{where}: {word} is not a class: give a number or a name')
    return _in_order(table, own, path)


def read_boxes(path, own):
    """The boxes of each photograph, from lines file,x0,y0,x1,y1 in its pixels; a photograph may have several."""
    find = _finder(own)
    table = {}
    for line, (file, *cells) in read_csv(path, ('file', 'x0', 'y0', 'x1', 'y1'), joined=True):
        where = f'{path}, line {line}'
        number = _number(find, file, where)
        try:
            box = tuple(float(cell) for cell in cells)
        except ValueError:
            raise UserError(f'{where}: not a number in {",".join(cells)!r}') from None
        check_box(where, file, box, own.sizes[number] or (np.inf, np.inf))
        table.setdefault(number, []).append(box)
    return _in_order(table, own, path)


def find_masks(folder, own):
    """The path of each photograph's mask, DIR/<name without extension>.png; UserError if missing or of another size."""
    paths = [os.path.join(folder, f'{os.path.splitext(name)[0]}.png') for name in own.names]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        more = f' (and {len(missing) - 1} more)' if missing[1:] else ''
        raise MissingFile(f'mask {missing[0]} is missing{more}: --masks must have <name>.png for every photograph')
    for path, size in zip(paths, own.sizes):
        check_mask_size(path, size or photograph_size(path, 'mask'))  # a damaged one is reported later
    return paths


def truth_of(own, number, size, preprocessing):
    """The `regions.Truth` of a photograph in the network's input square of `size`; None if the object is outside."""
    if own.boxes:
        seen = placed_boxes(own.boxes[number], own.sizes[number], size, preprocessing)
        return regions.Truth(seen, regions.box_region(seen, size), None) if len(seen) else None
    region = placed_mask(own.masks[number], size, preprocessing)
    return regions.Truth(None, region, np.zeros_like(region)) if region.any() else None


def placed_boxes(boxes, image_size, size, preprocessing):
    """Boxes in pixels of a photograph (width, height), transformed to the network's input square and clipped to it.

    Ints [G, 4], truncated like `boxes.scale_boxes`; boxes outside the square are dropped.
    """
    placed = placement(*image_size, size, preprocessing)
    scale = np.array([placed.width / image_size[0], placed.height / image_size[1]] * 2)
    corner = np.array([placed.left, placed.top] * 2)
    moved = np.floor(np.array(boxes) * scale).astype(int) - corner  # [G, 4]
    seen = (moved[:, 2:] >= 0).all(axis=1) & (moved[:, :2] < size).all(axis=1)
    return moved[seen].clip(0, size - 1)


def placed_mask(path, size, preprocessing):
    """A mask file in the network's input square: bool [size, size], nearest pixel."""
    region = Image.fromarray(read_region(path))
    placed = placement(*region.size, size, preprocessing)
    resized = region.resize((placed.width, placed.height), Image.Resampling.NEAREST)
    corner = (placed.left, placed.top)
    return np.array(resized.crop((*corner, placed.left + size, placed.top + size)))  # Pillow pads with zeros
