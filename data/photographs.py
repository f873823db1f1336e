"""Photographs: finding them by patterns, and loading them in batches."""

import glob
import os
import sys
from typing import NamedTuple

import numpy as np
import torch
from PIL import ImageOps
from torch.utils.data import DataLoader, Dataset

from wsol.errors import UserError
from wsol.photographs import SUFFIXES, other_endings, read_photograph
from wsol.preprocessing import PAPER, photograph_transform, seen_crop

SIDE = 448  # longest side of a photograph in a panel, in pixels


def _photographs_of(folder):
    """Sorted paths of the photographs in a folder, by extension, without hidden files (macOS leaves some).

    Other files are reported on standard error.
    """
    names = sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    files = [path for path in (os.path.join(folder, name) for name in names) if os.path.isfile(path)]
    chosen = [path for path in files if path.lower().endswith(SUFFIXES)]
    if line := other_endings(folder, files):
        print(line, file=sys.stderr)
    return chosen


def _matching_files(pattern):
    """Sorted files that match a pattern; brackets are literal if that matches a file, else a character set."""

    def files(one):
        return sorted(filter(os.path.isfile, glob.glob(one, recursive=True)))

    literal = files(pattern.replace('[', '[[]')) if '[' in pattern else []
    chosen = files(pattern)
    if literal and chosen and literal != chosen:
        raise UserError(
            f'--images {pattern} is ambiguous: {literal[0]} with literal brackets, or {chosen[0]} with a character '
            'set: for the first write [[] for each [, for the second list the files'
        )
    return literal or chosen


def find_photographs(patterns):
    """Absolute paths without duplicates, in order; a pattern is a file, a folder or a glob like 'photos/**/*.jpg'."""
    found = []
    for pattern in patterns:
        if os.path.isdir(pattern):
            paths = _photographs_of(pattern)
        else:
            paths = [pattern] if os.path.isfile(pattern) else _matching_files(pattern)
        if not paths:
            raise UserError(f'no image matches --images {pattern}: give files, folders, or a pattern in quotes')
        found += paths
    return list(dict.fromkeys(map(os.path.abspath, found)))


def unique_names(files):
    """A name for each file: its path, with extension, below the deepest common folder."""
    common = os.path.commonpath([os.path.dirname(path) for path in files])
    return [os.path.relpath(path, common) for path in files]


class Photograph(NamedTuple):
    """A loaded file, or the reason why it cannot be read."""

    number: int  # among the files
    tensor: torch.Tensor | None  # network input [3, S, S]
    picture: np.ndarray | None  # for panels, uint8 [y, x, 3]
    wrong: str | None  # the error message


class Photographs(Dataset):
    """A `Photograph` of each file; unreadable files carry an error message and do not stop the loading."""

    def __init__(self, files, size, preprocessing=PAPER):
        self.files = files
        self.preprocessing = preprocessing
        self.transform = photograph_transform(size, preprocessing)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, number):
        try:
            image = read_photograph(self.files[number])
        except UserError as error:
            return Photograph(number, None, None, str(error))
        return Photograph(number, self.transform(image), panel_picture(image, self.preprocessing), None)


def panel_picture(image, preprocessing=PAPER):
    """The part of a Pillow image that a network sees, for panels: uint8 [y, x, 3], sides at most SIDE pixels."""
    image = seen_crop(image, preprocessing)
    longest = max(image.size)
    if longest <= SIDE:
        return np.asarray(image)
    if min(image.size) * SIDE < longest:  # less than a pixel wide
        return np.asarray(image.resize([max(1, SIDE * value // longest) for value in image.size]))
    return np.asarray(ImageOps.contain(image, (SIDE, SIDE)))


def photograph_loader(files, size, batch_size, workers, preprocessing=PAPER, batches=None):
    """A DataLoader of lists of `Photograph`; size and preprocessing: the network's.

    batches: lists of file numbers; None: all files in order, batch_size at a time.
    """
    order = {'batch_size': batch_size} if batches is None else {'batch_sampler': batches}
    return DataLoader(Photographs(files, size, preprocessing), num_workers=workers, collate_fn=list, **order)
