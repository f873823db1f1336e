"""A cache for the results of random erasing, which do not depend on the map."""

import os

import numpy as np
import torch

import flags
from engine import arrays
from engine.resume.resuming import RUN_FLAGS, SCORE_FLAGS, digest

# More flags that do not affect the random counts.
OTHER_FLAGS = flags.names_of(flags.MAPS, flags.SCORES) - {'random_repeats'}


class RandomErasing:
    """The cached counts of random draws in which each image of a split is classified correctly.

    The cache is random_erasing_<key>.npz in the experiment folder: `ids` and `random` [images, K]. The key is a digest
    of everything that affects the counts: the checkpoint's size and time, the images, their labels and numbers, the
    seed, the flags, the versions and the device. Without a checkpoint nothing is cached.
    """

    def __init__(self, run, split, numbers):
        """run: the `resuming.Run` of a result; numbers: of the images, on which the draws depend."""
        self.ids = np.array(split.image_ids)
        self.path = None
        if 'checkpoint_bytes' in run.arguments:
            free = (RUN_FLAGS | SCORE_FLAGS | OTHER_FLAGS) - {'seed'}
            given = {flag: value for flag, value in run.arguments.items() if flag not in free and value is not None}
            source = {name: value for name, value in run.provenance().items() if name != 'arguments'}
            images = os.path.abspath(split.root), split.image_ids, split.labels, list(numbers)
            self.path = os.path.join(run.folder, f'random_erasing_{digest(given, source, images)[:12]}.npz')
        self.known = self._read()

    def _read(self):
        """The counts [images, K] of the file; None if it is missing, damaged or of other images."""
        if self.path is None or not arrays.is_whole(self.path):
            return None
        try:
            with np.load(self.path) as file:
                return torch.from_numpy(file['random']) if np.array_equal(file['ids'], self.ids) else None
        except (ValueError, KeyError):
            return None

    def known_of(self, items):
        """The counts [B, K] of the images at the positions `items`; None if they are not cached."""
        return None if self.known is None else self.known[items]

    def keep(self, rows):
        """Cache the counts of a result, an `arrays.Stored`."""
        if self.path is None or self.known is not None:
            return
        counts = rows.whole()
        if len(counts) == len(self.ids):
            arrays.write(self.path, {'ids': self.ids, 'random': counts})
            self.known = torch.from_numpy(counts)
