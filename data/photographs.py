"""Photographs: found by patterns, read as a person sees them, loaded in batches by the loader's processes."""

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
    """The photographs in a folder by their endings, sorted; hidden files, as macOS leaves beside them, are none.

    What other files there are is said on standard error.
    """
    names = sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    files = [path for path in (os.path.join(folder, name) for name in names) if os.path.isfile(path)]
    chosen = [path for path in files if path.lower().endswith(SUFFIXES)]
    if line := other_endings(folder, files):
        print(line, file=sys.stderr)
    return chosen


def _matching_files(pattern):
    """The files that a pattern finds, sorted; brackets that stand in a file's path mean themselves, else a choice."""

    def files(one):
        return sorted(filter(os.path.isfile, glob.glob(one, recursive=True)))

    literal = files(pattern.replace('[', '[[]')) if '[' in pattern else []
    chosen = files(pattern)
    if literal and chosen and literal != chosen:
        raise UserError(
            f'--images {pattern} means {literal[0]}, brackets in its name, or {chosen[0]}, by a choice of letters: '
            'for the first write [[] for each bracket [, for the second name the files'
        )
    return literal or chosen


def find_photographs(patterns):
    """Absolute paths, each once, in order. A pattern is a file, a folder (its images), or such as 'photos/**/*.jpg'."""
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
    """A name for each file: its path below the deepest folder that holds them all, extension included."""
    common = os.path.commonpath([os.path.dirname(path) for path in files])
    return [os.path.relpath(path, common) for path in files]


class Photograph(NamedTuple):
    """What is known of a file: its picture, or why there is none."""

    number: int  # among the files
    tensor: torch.Tensor | None  # as the network takes it, [3, S, S]
    picture: np.ndarray | None  # as a panel shows it, uint8 [y, x, 3]
    wrong: str | None  # what is wrong with the file


class Photographs(Dataset):
    """A `Photograph` of each image file; one that cannot be read is one too, so that the others go on."""

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
    """What a network sees of a Pillow image, as a panel shows it: uint8 [y, x, 3], no side over SIDE pixels."""
    image = seen_crop(image, preprocessing)
    return np.asarray(ImageOps.contain(image, (SIDE, SIDE)) if max(image.size) > SIDE else image)


def photograph_loader(files, size, batch_size, workers, preprocessing=PAPER, batches=None):
    """A DataLoader of lists of `Photograph`; size and preprocessing: the network's.

    The files come in their order, batch_size at a time, or as the lists of their numbers in `batches` say.
    """
    dealt = {'batch_size': batch_size} if batches is None else {'batch_sampler': batches}
    dealt.update(num_workers=workers, collate_fn=list)
    return DataLoader(Photographs(files, size, preprocessing), **dealt)
