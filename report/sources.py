"""Where the images come from whose maps are compared: a split of a data set, or photographs of the user's own."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from data_truth import ground_truth
from engine import evaluation
from report import own_photographs
from report.photographs import photograph_loader
from wsol.scoring import boxes, pixels, regions


class Batch(NamedTuple):
    """Images that are scored."""

    images: torch.Tensor  # [B, 3, S, S]
    labels: torch.Tensor | None  # the explained classes [B]; None: the predictions
    truths: list  # a `regions.Truth` an image, or none
    numbers: list  # of the images among all
    ids: list  # of the images: what arrays of results call them
    left_out: int  # images beside those that cannot be scored


class Source(NamedTuple):
    """Images by position, 0..count-1."""

    count: int
    batches: Callable  # lists of positions -> iterable of items, one a list
    read: Callable  # (positions, item) -> Batch


def spread(total, count):
    """`count` of the numbers 0..total-1, evenly spread; all of them for None."""
    return np.linspace(0, total - 1, min(count or total, total)).round().astype(int).tolist()


def subset(split, count):
    """(the split with `count` images, evenly spread over it, their numbers in it); all of them for None."""
    numbers = spread(len(split.image_ids), count)
    image_ids = [split.image_ids[n] for n in numbers]
    labels = [split.labels[n] for n in numbers]
    return split._replace(image_ids=image_ids, labels=labels), numbers


def truth_reader(args, split):
    """A function: image id -> its `regions.Truth`; an image without ground truth is a UserError now."""
    size = args.crop_size
    table, root = ground_truth(args.dataset, split.folder, split.image_ids, args.data_root, args.mask_root)
    if root:
        return lambda image_id: regions.Truth(None, *pixels.read_ground_truth(root, *table[image_id], size))

    def read_boxes(image_id):
        true_boxes = boxes.scale_boxes(*table[image_id], size)
        return regions.Truth(true_boxes, regions.box_region(true_boxes, size), None)

    return read_boxes


def split_source(setting, args, needs_truth):
    """The `Source` of a data set's split."""
    split, numbers = subset(setting.split, args.max_images)
    truth = truth_reader(args, split) if needs_truth else None

    def batches(items):
        return evaluation.split_loader(setting, split, args.crop_size, args.workers, items)

    def read(items, item):
        images, labels, image_ids = item
        truths = [truth(image_id) for image_id in image_ids] if truth else []
        return Batch(images, labels, truths, [numbers[one] for one in items], list(image_ids), 0)

    return Source(len(numbers), batches, read)


def photograph_source(setting, args, own, names, needs_truth):
    """The `Source` of `own_photographs.Collection` own; names: of the network's classes, or None.

    What cannot be read, or shows nothing of its object where the network looks, is left out with a line on standard
    error.
    """
    numbers = spread(len(own.files), args.max_images)
    labels = own_photographs.read_labels(args.labels, own, setting.model.num_classes, names) if args.labels else None
    files = [own.files[number] for number in numbers]
    preprocessing = setting.model.preprocessing

    def batches(items):
        return photograph_loader(files, setting.size, args.batch_size, args.workers, preprocessing, items)

    def read(items, photographs):
        good = []
        truths = []
        for item, photograph in zip(items, photographs):
            wrong = photograph.wrong
            number = numbers[item]
            truth = None
            if needs_truth and not wrong:
                truth = own_photographs.truth_of(own, number, setting.size, preprocessing)
                if truth is None:
                    wrong = f'image {own.files[number]} has no object where the network looks'
            if wrong:
                print(f'eval_attribution.py: left out: {wrong}', file=sys.stderr, flush=True)
                continue
            good.append((number, photograph.tensor))
            truths += [truth] if needs_truth else []
        chosen = [number for number, _ in good]
        images = torch.stack([tensor for _, tensor in good]) if good else torch.empty(0)
        explained = torch.tensor([labels[number] for number in chosen]) if labels else None
        ids = [own.names[number] for number in chosen]
        return Batch(images, explained, truths, chosen, ids, len(items) - len(good))

    return Source(len(numbers), batches, read)
