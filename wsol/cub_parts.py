"""CUB's parts and attributes: which parts distinguish two classes, and where they are in an image.

Works on any folder in CUB-200-2011's layout. Classes count from 0 here and from 1 in the files. Part ids are the
protocol's: 1 head, 2 back, 3 belly, 4 breast, 5 tail, 6 leg, 7 wing.
"""

import math
import os
from itertools import combinations
from typing import NamedTuple

import numpy as np
from PIL import Image

from .errors import MissingFile, UserError
from .photographs import opened

PART_WORDS = {
    1: ('bill', 'crown', 'eye', 'forehead', 'head', 'nape', 'throat'),
    2: ('back',),
    3: ('belly',),
    4: ('breast',),
    5: ('tail',),
    6: ('leg',),
    7: ('wing',),
}  # matched anywhere in an attribute's name
PRESENT = 50  # percent: a class has an attribute at or above this


class Union(NamedTuple):
    """Groups CUB's 15 parts into the protocol's seven."""

    part: int  # the protocol's id
    members: tuple  # CUB's ids
    mean: bool  # one point, the mean of the visible members; else one point per member


UNIONS = (
    Union(1, (2, 5, 6, 7, 10, 11, 15), mean=True),
    Union(2, (1,), mean=False),
    Union(3, (3,), mean=False),
    Union(4, (4,), mean=False),
    Union(5, (14,), mean=False),
    Union(6, (8, 12), mean=False),
    Union(7, (9, 13), mean=False),
)


class Pair(NamedTuple):
    """A pair of classes."""

    a: int  # a < b, from 0
    b: int
    parts: set  # ids of the differing parts
    attributes: list  # names of the differing attributes


def _rows(folder, *path):
    """Yield (place for messages, line) for the lines of a table below `folder` that are not blank."""
    path = os.path.join(folder, *path)
    try:
        with open(path, encoding='utf-8-sig', errors='surrogateescape') as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f'{path}, line {number}', line.strip()
    except FileNotFoundError:
        raise MissingFile(f'no file {path}: cue localization needs a data set in the layout of CUB-200-2011') from None


def _names(folder, *path):
    """{number: name} of a table with the lines 'number name'."""
    names = {}
    for place, line in _rows(folder, *path):
        number, _, name = line.partition(' ')
        if not number.isdecimal() or not name or int(number) in names:
            raise UserError(f'{place}: {line[:80]!r}: it must be a number of its own, a space and a name')
        names[int(number)] = name.strip()
    return names


def _numbers(place, line):
    """The finite numbers of a line."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise UserError(f'{place}: {line[:80]!r} is not a row of numbers: restore the file')
    return numbers


def read_class_attributes(folder):
    """(attribute names, bool array [classes, attributes])."""
    names = [*_names(folder, 'attributes', 'attributes.txt').values()]
    table = []
    for place, line in _rows(folder, 'attributes', 'class_attribute_labels_continuous.txt'):
        table.append(_numbers(place, line))
        if len(table[-1]) != len(names):
            raise UserError(
                f'{place}: {len(table[-1])} values per class for {len(names)} attributes of attributes.txt: restore '
                'both files'
            )
    return names, np.array(table).reshape(-1, len(names)) >= PRESENT


def named_parts(attribute):
    """Ids of the parts whose words occur in an attribute's name."""
    return {part for part, parts in PART_WORDS.items() if any(word in attribute for word in parts)}


def class_pairs(folder, num_classes=0):
    """All pairs a < b, ascending, whatever their number of differing parts.

    num_classes: of the data; UserError if the attribute table has fewer.
    """
    names, table = read_class_attributes(folder)
    if len(table) < num_classes:
        raise UserError(
            f'{folder}/attributes/class_attribute_labels_continuous.txt has {len(table)} classes, the split '
            f'{num_classes}: restore the file, or give the --metadata_root that belongs to the data'
        )
    parts = [named_parts(name) for name in names]
    pairs = []
    for a, b in combinations(range(len(table)), 2):
        differing = np.flatnonzero(table[a] != table[b])
        pairs.append(Pair(a, b, set().union(*(parts[i] for i in differing)), [names[i] for i in differing]))
    return pairs


def pairs_by_count(pairs, counts=(1, 2, 3)):
    """Pairs with `counts` differing parts in the protocol's order: by count, then ascending."""
    return [pair for count in counts for pair in pairs if len(pair.parts) == count]


def read_part_locations(folder):
    """{image path: {CUB part id: (x, y)}} of the visible parts, in pixels of the original image.

    An image without a row in part_locs.txt is left out: nobody has looked for its parts.
    """
    paths = _names(folder, 'images.txt')
    locations = {}
    for place, line in _rows(folder, 'parts', 'part_locs.txt'):
        row = _numbers(place, line)
        if len(row) != 5 or row[0] not in paths or row[4] not in (0, 1):
            raise UserError(
                f'{place}: {line[:80]!r}: it must be image number (of images.txt), part, x, y, and 1 if visible, else 0'
            )
        image, part, x, y, visible = row
        found = locations.setdefault(paths[image], {})
        if visible:
            found[int(part)] = (x, y)
    return locations


def part_points(locations, image_size, size):
    """Points of the grouped parts in a size x size image: (int array [P, 2] of x, y; list of P part ids).

    locations: {CUB part id: (x, y)} in the original image of image_size (width, height).
    """
    scaled = {part: np.array(point) / np.array(image_size) * size for part, point in locations.items()}
    points = []
    ids = []
    for union in UNIONS:
        visible = [scaled[member] for member in scaled if member in union.members]
        if visible and union.mean:
            visible = [np.mean(visible, axis=0)]
        points += visible
        ids += [union.part] * len(visible)
    return np.array(points).reshape(-1, 2).astype(int), ids


def nearest_part(points, ids, size):
    """Part id of the nearest point at every pixel [size, size], the first on ties; 0 if there are no points."""
    if not ids:
        return np.zeros((size, size), np.uint8)
    axis = np.arange(size)
    horizontal = (axis[None, :] - points[:, :1]) ** 2  # [P, W]
    vertical = (axis[None, :] - points[:, 1:]) ** 2  # [P, H]
    distance = vertical[:, :, None] + horizontal[:, None, :]  # [P, H, W]
    return np.array(ids, np.uint8)[distance.argmin(axis=0)]


def segmentation_name(image_id):
    """Path of an image's segmentation below the data set's folder."""
    return f'segmentations/{os.path.splitext(image_id)[0]}.png'


def same_shape(one, other):
    """Have two sizes (width, height) the same aspect ratio, up to rounding to a pixel of `one`?

    Segmentations that are smaller than their photograph fit it; turned, cut or another photograph's do not.
    """
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(other)


def segmentation(folder, image_id, size, image_size=None):
    """The bird's pixels, bool [size, size]. Pillow's bicubic filter, then > 0, as released.

    image_size: (width, height) of the photograph; UserError if the segmentation has another aspect ratio.
    """
    path = os.path.join(folder, segmentation_name(image_id))
    with opened(path, 'segmentation') as mask:
        if image_size and not same_shape(mask.size, image_size):
            raise UserError(
                f'segmentation {path} is {mask.size[0]} x {mask.size[1]} pixels, its image {image_size[0]} x '
                f'{image_size[1]}: it does not fit; restore the original segmentation'
            )
        return np.asarray(mask.convert('L').resize((size, size), Image.BICUBIC)) > 0


def part_map(folder, image_id, locations, image_size, size):
    """(uint8 [size, size], set): nearest visible part at each pixel of the bird, 0 elsewhere; the visible parts."""
    points, ids = part_points(locations, image_size, size)
    inside = segmentation(folder, image_id, size, image_size)
    return np.where(inside, nearest_part(points, ids, size), 0).astype(np.uint8), set(ids)


def read_exact_labels(folder):
    """{label id: part name} from part_masks/, or None if the data set has no part masks."""
    if not os.path.isdir(os.path.join(folder, 'part_masks')):
        return None
    return _names(folder, 'part_masks', 'labels.txt')


def exact_labels_of(pair, labels):
    """Ids of the exact part labels whose name occurs in an attribute in which the pair differs."""
    return {label for label, name in labels.items() if any(name in attribute for attribute in pair.attributes)}


def exact_part_map(folder, image_id, size):
    """uint8 [size, size]: part label at each pixel, 0 for none (nearest pixel of part_masks/)."""
    path = os.path.join(folder, 'part_masks', os.path.splitext(image_id)[0] + '.png')
    with opened(path, 'part mask') as mask:
        return np.array(mask.resize((size, size), Image.NEAREST))
