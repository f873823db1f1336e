"""The images of eval_attribution.py: a split of a data set, or the user's own photographs."""

import sys
from typing import NamedTuple

import numpy as np
import torch

from data_loaders import with_sizes
from wsol.scoring import boxes, pixels, regions

from . import own_photographs
from .photographs import photograph_loader
from .truth import ground_truth


class ImageBatch(NamedTuple):
    """A batch of images to score."""

    images: torch.Tensor  # [B, 3, S, S]
    labels: torch.Tensor | None  # the explained classes [B]; None: the predictions
    truths: list  # a `regions.Truth` for each image, or empty
    numbers: list  # of the images, among all
    ids: list  # of the images, for the arrays of results
    left_out: int  # number of further images, which cannot be scored


def spread(total, count):
    """`count` of the numbers 0..total-1, evenly spaced; None: all."""
    return np.linspace(0, total - 1, min(count or total, total)).round().astype(int).tolist()


def subset(split, count):
    """(the split reduced to `count` evenly spaced images, their numbers in it); None: all images."""
    numbers = spread(len(split.image_ids), count)
    image_ids = [split.image_ids[n] for n in numbers]
    labels = [split.labels[n] for n in numbers]
    return split._replace(image_ids=image_ids, labels=labels), numbers


def truth_reader(args, split):
    """A function: image id -> `regions.Truth`; UserError now if an image has no ground truth."""
    size = args.crop_size
    table, root = ground_truth(args.dataset, split.folder, split.image_ids, args.data_root, args.mask_root)
    if root:
        return lambda image_id: regions.Truth(None, *pixels.read_ground_truth(root, *table[image_id], size))

    def read_boxes(image_id):
        true_boxes = boxes.scale_boxes(*table[image_id], size)
        return regions.Truth(true_boxes, regions.box_region(true_boxes, size), None)

    return read_boxes


class SplitImages:
    """The images of a test split; positions are 0..count-1."""

    def __init__(self, evaluator, needs_truth):
        """evaluator: an `evaluation.Evaluator` with a loaded split and network."""
        self.evaluator = evaluator
        self.split, self.numbers = subset(evaluator.split, evaluator.args.max_images)
        self.truth = truth_reader(evaluator.args, self.split) if needs_truth else None
        if needs_truth:
            self.split = with_sizes(self.split)
        self.count = len(self.numbers)

    def batches(self, items):
        """Yield the `ImageBatch` of each list of positions."""
        loader = self.evaluator.loader(self.split, items)
        for positions, (images, labels, image_ids) in zip(items, loader):
            truths = [self.truth(image_id) for image_id in image_ids] if self.truth else []
            yield ImageBatch(images, labels, truths, [self.numbers[one] for one in positions], list(image_ids), 0)


class OwnPhotographs:
    """The user's own photographs; positions are 0..count-1.

    Photographs that cannot be read, or whose object lies outside the network's input, are left out and reported on
    standard error.
    """

    def __init__(self, evaluator, own, names, needs_truth):
        """own: an `own_photographs.Collection`; names: class names of the network, or None."""
        args = evaluator.args
        model = evaluator.model
        self.evaluator = evaluator
        self.own = own
        self.needs_truth = needs_truth
        self.numbers = spread(len(own.files), args.max_images)
        self.labels = own_photographs.read_labels(args.labels, own, model.num_classes, names) if args.labels else None
        self.count = len(self.numbers)

    def batches(self, items):
        """Yield the `ImageBatch` of each list of positions."""
        args = self.evaluator.args
        files = [self.own.files[number] for number in self.numbers]
        preprocessing = self.evaluator.model.preprocessing
        how = self.evaluator.size, args.batch_size, args.workers, preprocessing, items
        for positions, photographs in zip(items, photograph_loader(files, *how)):
            yield self._batch([self.numbers[one] for one in positions], photographs)

    def _batch(self, numbers, photographs):
        good = []
        truths = []
        for number, photograph in zip(numbers, photographs):
            wrong = photograph.wrong
            if self.needs_truth and not wrong:
                preprocessing = self.evaluator.model.preprocessing
                truth = own_photographs.truth_of(self.own, number, self.evaluator.size, preprocessing)
                if truth is None:
                    wrong = f'image {self.own.files[number]} has no object in the part that the network sees'
                else:
                    truths.append(truth)
            if wrong:
                print(f'eval_attribution.py: left out: {wrong}', file=sys.stderr, flush=True)
            else:
                good.append((number, photograph.tensor))
        chosen = [number for number, _ in good]
        images = torch.stack([tensor for _, tensor in good]) if good else torch.empty(0)
        explained = torch.tensor([self.labels[number] for number in chosen]) if self.labels else None
        ids = [self.own.names[number] for number in chosen]
        return ImageBatch(images, explained, truths, chosen, ids, len(numbers) - len(good))
