"""CUB's parts and attributes: which parts distinguish two classes, and where they are in an image.

Works on any folder in CUB-200-2011's layout. Classes count from 0 here and from 1 in the files. Part ids are the
protocol's: 1 head, 2 back, 3 belly, 4 breast, 5 tail, 6 leg, 7 wing.
"""

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


def _lines(folder, *path):
    """Lines of a file below `folder`; raises MissingFile."""
    path = os.path.join(folder, *path)
    if not os.path.isfile(path):
        raise MissingFile(f'no file {path}: cue localization needs a data set in the layout of CUB-200-2011')
    with open(path) as file:
        return file.read().splitlines()


def read_class_attributes(folder):
    """(attribute names, bool array [classes, attributes])."""
    names = [line.split(' ', 1)[1] for line in _lines(folder, 'attributes', 'attributes.txt')]
    rows = _lines(folder, 'attributes', 'class_attribute_labels_continuous.txt')
    table = np.array([[float(value) for value in row.split()] for row in rows]) >= PRESENT
    if table.shape[1] != len(names):
        raise UserError(f'{folder}/attributes: {table.shape[1]} values per class for {len(names)} attributes')
    return names, table


def named_parts(attribute):
    """Ids of the parts whose words occur in an attribute's name."""
    return {part for part, parts in PART_WORDS.items() if any(word in attribute for word in parts)}


def class_pairs(folder):
    """All pairs a < b, ascending, whatever their number of differing parts."""
    names, table = read_class_attributes(folder)
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
    """{image path: {CUB part id: (x, y)}} of the visible parts, in pixels of the original image."""
    paths = dict(line.split(' ', 1) for line in _lines(folder, 'images.txt'))
    locations = {path: {} for path in paths.values()}
    for line in _lines(folder, 'parts', 'part_locs.txt'):
        image, part, x, y, visible = line.split()
        if visible == '1':
            locations[paths[image]][int(part)] = (float(x), float(y))
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


def segmentation(folder, image_id, size):
    """The bird's pixels, bool [size, size]. Pillow's bicubic filter, then > 0, as released."""
    with opened(os.path.join(folder, segmentation_name(image_id)), 'segmentation') as mask:
        return np.asarray(mask.convert('L').resize((size, size), Image.BICUBIC)) > 0


def part_map(folder, image_id, locations, image_size, size):
    """(uint8 [size, size], set): nearest visible part at each pixel of the bird, 0 elsewhere; the visible parts."""
    points, ids = part_points(locations, image_size, size)
    inside = segmentation(folder, image_id, size)
    return np.where(inside, nearest_part(points, ids, size), 0).astype(np.uint8), set(ids)


def read_exact_labels(folder):
    """{label id: part name} from part_masks/, or None if the data set has no part masks."""
    if not os.path.isdir(os.path.join(folder, 'part_masks')):
        return None
    return {int(line.split()[0]): line.split()[1] for line in _lines(folder, 'part_masks', 'labels.txt')}


def exact_labels_of(pair, labels):
    """Ids of the exact part labels whose name occurs in an attribute in which the pair differs."""
    return {label for label, name in labels.items() if any(name in attribute for attribute in pair.attributes)}


def exact_part_map(folder, image_id, size):
    """uint8 [size, size]: part label at each pixel, 0 for none (nearest pixel of part_masks/)."""
    path = os.path.join(folder, 'part_masks', os.path.splitext(image_id)[0] + '.png')
    with opened(path, 'part mask') as mask:
        return np.array(mask.resize((size, size), Image.NEAREST))
