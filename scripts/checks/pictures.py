"""Checks for pictures: missing, unreadable or of the wrong size."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from wsol import cub_parts


class Fault(NamedTuple):
    """A fault that was found."""

    kind: str  # counted in the summary
    what: str  # file and details


class Job(NamedTuple):
    """A picture to check."""

    path: str
    what: str  # image, mask or segmentation
    size: tuple | None = None  # expected (width, height); of a segmentation, the photograph's


def check_picture(job, fast):
    """Faults of an image or mask: missing, unreadable, or of the wrong size."""
    path, what, size = job
    if not os.path.isfile(path):
        return [Fault(f'missing {what}', path)]
    try:
        with Image.open(path) as image:
            found = image.size
            if not fast:
                image.load()
            black = what == 'segmentation' and not fast and not image.convert('L').getbbox()
    except Exception as error:  # decoders raise nearly any exception for a damaged file
        return [Fault(f'unreadable {what}', f'{path} ({error})')]
    if black:
        return [Fault('black segmentation', f'{path} has no pixel of the object')]
    fits = size is None or (cub_parts.same_shape(found, size) if what == 'segmentation' else found == size)
    if not fits:
        return [Fault('wrong size', f'{path} is {found[0]}x{found[1]}, image_sizes.txt says {size[0]}x{size[1]}')]
    return []


def check_pictures(jobs, label, args):
    """Faults of many pictures, read by --workers threads."""
    with ThreadPoolExecutor(args.workers) as pool:
        results = pool.map(lambda job: check_picture(job, args.fast), jobs)
        return [fault for faults in tqdm(results, label, len(jobs), leave=False, disable=None) for fault in faults]
