"""Ground truth of images: true boxes or masks, checked before work starts. A mistake in them is a UserError."""

import os
from typing import NamedTuple

from data_loaders import dataset_info, read_boxes, read_masks, read_sizes
from wsol.errors import UserError

from . import folders


class GroundTruth(NamedTuple):
    """The true regions of some images."""

    table: dict  # {image id: (boxes, (width, height))}, or {image id: ([mask path, ...], ignore path)}
    mask_root: str | None  # the folder of the masks; None: the truth is boxes


def localization(dataset, data_root):
    """'box' or 'mask', what a data set has; None for a folder of photographs without either."""
    return folders.truth_kind(data_root) if dataset == folders.NAME else dataset_info(dataset).localization


def ground_truth(dataset, folder, image_ids, data_root, mask_root):
    """The `GroundTruth` of images of a data set; folder: of the split's metadata."""
    kind = localization(dataset, data_root)
    if dataset == folders.NAME:
        if kind is None:
            raise UserError(
                f'{data_root} has neither {folders.BOXES} nor {folders.MASKS}/: localization needs true '
                'boxes or masks (docs/data.md)'
            )
        if kind == 'mask':
            return GroundTruth(folders.masks(data_root, image_ids), data_root)
        return GroundTruth(folders.boxes(data_root, image_ids), None)
    if kind == 'mask':
        root = os.path.join(mask_root, dataset)
        return GroundTruth(checked_masks(folder, image_ids, root), root)
    return GroundTruth(checked_boxes(folder, image_ids), None)


def checked_boxes(folder, image_ids):
    """{image id: (its boxes [(x0, y0, x1, y1), ...], its (width, height))}; one without them or an impossible one is a
    UserError."""
    boxes = read_boxes(folder)
    sizes = read_sizes(folder)
    for image_id in image_ids:
        if image_id not in boxes or min(sizes.get(image_id, (0,))) <= 0:
            name = 'image_sizes' if image_id in boxes else 'localization'
            raise UserError(f'{folder}/{name}.txt has no row for {image_id}, or not a size')
        if any(x0 > x1 or y0 > y1 for x0, y0, x1, y1 in boxes[image_id]):
            raise UserError(
                f'{folder}/localization.txt: a box of {image_id} is not x0,y0,x1,y1 with x0 <= x1 and y0 <= y1'
            )
    return {image_id: (boxes[image_id], sizes[image_id]) for image_id in image_ids}


def checked_masks(folder, image_ids, root):
    """{image id: ([mask path, ...], ignore path)}; an image without a mask or a mask without a file is a UserError."""
    masks = read_masks(folder)
    for image_id in image_ids:
        if image_id not in masks:
            raise UserError(f'{folder}/localization.txt has no row for {image_id}')
        for path in (*masks[image_id][0], masks[image_id][1]):
            if path and not os.path.isfile(os.path.join(root, path)):
                raise UserError(
                    f'mask {os.path.join(root, path)} is missing: restore the file, or give the right --mask_root'
                )
    return masks
