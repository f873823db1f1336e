"""Ground-truth boxes, masks and parts; checked before work starts, errors are UserError."""

import os
from typing import NamedTuple

import util
from data_loaders import DATASETS, dataset_info
from wsol.errors import UserError

from . import folder_truth, folders
from .metadata import read_boxes, read_masks, read_sizes


class GroundTruth(NamedTuple):
    """The ground truth of some images."""

    table: dict  # {image id: (boxes, (width, height))}, or {image id: ([mask path, ...], ignore path)}
    mask_root: str | None  # the folder of the masks; None: the truth is boxes


def localization(dataset, data_root):
    """The kind of ground truth of a data set: 'box', 'mask', or None (folder of photographs only)."""
    return folder_truth.truth_kind(data_root) if dataset == folders.NAME else dataset_info(dataset).localization


def part_folder(dataset, data_root):
    """The data set's folder in CUB's layout, with part annotations; UserError if it has none."""
    parts = dataset_info(dataset).parts
    if parts is None:
        named = ', '.join(name for name, row in DATASETS.items() if row.parts)
        raise UserError(f'--dataset={dataset} has no part annotations: give --dataset of {named}')
    return os.path.join(data_root, parts)


def ground_truth(dataset, folder, image_ids, data_root, mask_root):
    """The `GroundTruth` of images of a data set; folder: the split's metadata."""
    kind = localization(dataset, data_root)
    if dataset == folders.NAME:
        if kind is None:
            raise UserError(
                f'{data_root} has neither {folder_truth.BOXES} nor {folder_truth.MASKS}/: localization needs true '
                'boxes or masks (docs/data.md)'
            )
        if kind == 'mask':
            return GroundTruth(folder_truth.masks(data_root, image_ids), data_root)
        return GroundTruth(folder_truth.boxes(data_root, image_ids), None)
    if kind == 'mask':
        root = os.path.join(mask_root, dataset)
        return GroundTruth(checked_masks(folder, image_ids, root), root)
    return GroundTruth(checked_boxes(folder, image_ids), None)


def checked_boxes(folder, image_ids):
    """{image id: (boxes [(x0, y0, x1, y1), ...], (width, height))}; UserError if one is missing or invalid."""
    boxes = read_boxes(folder)
    sizes = read_sizes(folder)
    for image_id in image_ids:
        if image_id not in boxes or min(sizes.get(image_id, (0,))) <= 0:
            name = 'image_sizes' if image_id in boxes else 'localization'
            raise UserError(f'{folder}/{name}.txt has no row, or no valid one, for {image_id}')
        if any(x0 > x1 or y0 > y1 for x0, y0, x1, y1 in boxes[image_id]):
            raise UserError(
                f'{folder}/localization.txt: a box of {image_id} is not x0,y0,x1,y1 with x0 <= x1 and y0 <= y1'
            )
    return {image_id: (boxes[image_id], sizes[image_id]) for image_id in image_ids}


def checked_masks(folder, image_ids, root):
    """{image id: ([mask path, ...], ignore path)}; UserError if a row or a file is missing."""
    masks = read_masks(folder)
    for image_id in image_ids:
        if image_id not in masks:
            raise UserError(f'{folder}/localization.txt has no row for {image_id}')
        for path in (*masks[image_id][0], masks[image_id][1]):
            if path and not util.is_file(os.path.join(root, path)):
                raise UserError(
                    f'mask {os.path.join(root, path)} is missing: restore the file, or give the right --mask_root'
                )
    return masks
