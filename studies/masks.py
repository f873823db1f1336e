"""Control for cue localization on CUB: copies of the data set, by links, with other segmentations."""

import os
import re

import numpy as np
from PIL import Image

import util
from data.metadata import read_boxes, read_image_ids, read_sizes
from wsol.errors import UserError

BOX = 'boxmasks'  # the whole box instead of the bird


def names(args):
    """Names of the controls."""
    return [BOX, *map(name_of, args.segmentations)]


def name_of(folder):
    """The name of the control with a folder of segmentations."""
    return os.path.basename(os.path.abspath(folder))


def check_names(parser, folders, taken):
    """Usage error unless the folders of segmentations exist and their names can name results; taken: a name in use."""
    names = [BOX, taken]
    for folder in folders:
        if not os.path.isdir(folder):
            parser.error(f'--segmentations {folder} is not a folder')
        name = name_of(folder)
        if name in names or re.fullmatch(r'\d+px|paper.*', name):
            parser.error(f'--segmentations {folder}: results named {name} are there already: rename the folder')
        names.append(name)


def data_root(save_root, name):
    """Data root of a control."""
    return os.path.join(save_root, f'dataset_{name}')


def link(source, target):
    """Make the link `target`; UserError if it is there already and leads elsewhere."""
    if not os.path.lexists(target):
        os.symlink(os.path.abspath(source), target)
    elif os.path.realpath(target) != os.path.realpath(source):
        raise UserError(
            f'{target} leads to {os.path.realpath(target)}, not to {source}: give other segmentations a folder of '
            'another name; if the data have moved, remove the link'
        )


def prepare(args):
    """Create the data root of each control."""
    own = os.path.join(args.data_root, 'CUB')
    for name, folder in zip(names(args), [None, *args.segmentations]):
        place = os.path.join(data_root(args.save_root, name), 'CUB')
        os.makedirs(place, exist_ok=True)
        for entry in os.listdir(own):
            if entry != 'segmentations':
                link(os.path.join(own, entry), os.path.join(place, entry))
        if folder:
            link(folder, os.path.join(place, 'segmentations'))
        else:
            draw_boxes(os.path.join(args.metadata_root, 'CUB', 'test'), os.path.join(place, 'segmentations'))


def draw_boxes(metadata, folder):
    """Write a mask for each image of a split: white inside its boxes, far sides included."""
    boxes = read_boxes(metadata)
    sizes = read_sizes(metadata)
    for image_id in read_image_ids(metadata):
        path = os.path.join(folder, os.path.splitext(image_id)[0] + '.png')
        if os.path.isfile(path):
            continue
        width, height = sizes[image_id]
        mask = np.zeros((height, width), np.uint8)
        for x0, y0, x1, y1 in boxes[image_id]:
            mask[y0 : y1 + 1, x0 : x1 + 1] = 255
        os.makedirs(os.path.dirname(path), exist_ok=True)
        util.atomically(path, lambda file, mask=mask: Image.fromarray(mask).save(file, 'PNG'))
