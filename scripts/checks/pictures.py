"""Checks for pictures: missing, unreadable or of the wrong size."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm


class Fault(NamedTuple):
    """A fault that was found."""

    kind: str  # counted in the summary
    what: str  # file and details


class Job(NamedTuple):
    """A picture to check."""

    path: str
    what: str  # image, mask or segmentation
    size: tuple | None = None  # expected (width, height)


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
    except Exception as error:  # decoders raise nearly any exception for a damaged file
        return [Fault(f'unreadable {what}', f'{path} ({error})')]
    if size not in (None, found):
        return [Fault('wrong size', f'{path} is {found[0]}x{found[1]}, image_sizes.txt says {size[0]}x{size[1]}')]
    return []


def check_pictures(jobs, label, args):
    """Faults of many pictures, read by --workers threads."""
    with ThreadPoolExecutor(args.workers) as pool:
        results = pool.map(lambda job: check_picture(job, args.fast), jobs)
        return [fault for faults in tqdm(results, label, len(jobs), leave=False, disable=None) for fault in faults]
