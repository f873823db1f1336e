"""Files of ToyBirds: pictures and masks, CUB's tables, and split files."""

import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from .classes import DESIGNS, LABELS, class_name, looks_of
from .render import CUB_PARTS, render_bird

NAME = 'ToyBirds'  # prefix of temporary folders and messages; each design has its own name
MARKER = 'toybirds.json'  # written last: the arguments; marks a complete folder
SPLITS = ('train', 'val', 'test')
SPLIT_TABLES = ('image_ids', 'class_labels', 'image_sizes', 'localization')
DATA_TABLES = (
    MARKER,
    'parts/parts.txt',
    'parts/part_locs.txt',
    'part_masks/labels.txt',
    'attributes/attributes.txt',
    'attributes/class_attribute_labels_continuous.txt',
    'images.txt',
    'image_class_labels.txt',
    'train_test_split.txt',
    'bounding_boxes.txt',
    'classes.txt',
)


class Job(NamedTuple):
    """A picture to render."""

    split: str
    label: int  # class, from 0
    place: int  # index within class and split, from 0
    path: str  # below the image folder
    looks: dict  # {part: look}
    seed: int
    size: int  # shorter side, px
    root: str  # the data set's folder
    design: str  # a key of DESIGNS


class Drawn(NamedTuple):
    """A rendered picture's entries in the tables."""

    width: int  # pixels
    height: int
    box: tuple  # (x, y, w, h) around the bird, pixels
    part_locs: np.ndarray  # [15, 3]: x, y, visible


def list_jobs(args, root):
    """All pictures in file order: by class, then train, val, test.

    The image number in a name counts only train and test, from 1.
    """
    jobs = []
    number = 0
    design = DESIGNS[args.design]
    for label, code in enumerate(design.codes(args.classes)):
        folder = class_name(label + 1, code)
        for split in SPLITS:
            for place in range(getattr(args, split)):
                number += split != 'val'
                running = place + 1 + (args.train if split == 'test' else 0)
                name = f'{folder[4:]}_{running:04d}' + (f'_{number}' if split != 'val' else '')
                path = f'{folder}/{name}.jpg'
                looks = looks_of(code, design.looks)
                jobs.append(Job(split, label, place, path, looks, args.seed, args.size, str(root), args.design))
    return jobs


def folders_of(job):
    """Folders of the data set that get a file for this picture."""
    return ['val_images'] if job.split == 'val' else ['images', 'segmentations', 'part_masks']


def render_job(job):
    """Render and write a picture and, except for val, its masks; returns its `Drawn`."""
    cv2.setNumThreads(1)  # the pool already uses all cores
    rng = np.random.default_rng([job.seed, SPLITS.index(job.split), job.label, job.place])
    bird = render_bird(job.looks, rng, job.size, DESIGNS[job.design].looks)
    root = Path(job.root)
    Image.fromarray(bird.image).save(root / folders_of(job)[0] / job.path, quality=95)
    if job.split != 'val':
        mask = Path(job.path).with_suffix('.png')
        Image.fromarray(bird.segmentation).save(root / 'segmentations' / mask, compress_level=3)
        Image.fromarray(bird.labels).save(root / 'part_masks' / mask, compress_level=3)
    height, width = bird.labels.shape
    return Drawn(width, height, cv2.boundingRect(bird.segmentation), bird.part_locs)


def show_progress(results, total):
    """Yield the results; shows a bar on a terminal, else a line per tenth, on stderr."""
    if sys.stderr.isatty():
        yield from tqdm(results, total=total, unit='image', desc=NAME)
        return
    for done, result in enumerate(results, start=1):
        if done * 10 // total > (done - 1) * 10 // total:
            print(f'{NAME}: {done}/{total} images', file=sys.stderr, flush=True)
        yield result


def render_all(jobs, workers):
    """Results of render_job in the order of jobs, computed by `workers` processes."""
    for job in jobs:
        for folder in folders_of(job):
            (Path(job.root) / folder / job.path).parent.mkdir(parents=True, exist_ok=True)
    ignored = signal.SIGINT, signal.SIG_IGN  # Ctrl-C is handled by the main process, which stops the others
    with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=ignored) as pool:
        try:
            return list(show_progress(pool.map(render_job, jobs, chunksize=8), len(jobs)))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def write_lines(path, lines):
    """Write a text file with a final newline, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines))


def write_layout(root, codes, looks, jobs, results):
    """Write CUB's text files for train and test; codes: of the classes; looks: the design's."""
    listed = [(job, drawn) for job, drawn in zip(jobs, results) if job.split != 'val']
    write_image_tables(root, listed)
    write_part_tables(root, [drawn.part_locs for _, drawn in listed])
    write_class_tables(root, codes, looks)


def write_image_tables(root, listed):
    """Write tables with a line per image, by its number from 1. listed: [(Job, Drawn), ...]."""
    jobs = [job for job, _ in listed]
    write_lines(root / 'images.txt', (f'{i} {job.path}' for i, job in enumerate(jobs, 1)))
    write_lines(root / 'image_class_labels.txt', (f'{i} {job.label + 1}' for i, job in enumerate(jobs, 1)))
    write_lines(root / 'train_test_split.txt', (f'{i} {int(job.split == "train")}' for i, job in enumerate(jobs, 1)))
    boxes = (' '.join(f'{value:.1f}' for value in drawn.box) for _, drawn in listed)
    write_lines(root / 'bounding_boxes.txt', (f'{i} {box}' for i, box in enumerate(boxes, 1)))


def write_part_tables(root, part_locs):
    """Write names and locations of CUB's parts, and the mask labels. part_locs: an array [15, 3] per image."""
    write_lines(root / 'parts/parts.txt', (f'{n} {name}' for n, name in enumerate(CUB_PARTS, 1)))
    places = (
        f'{i} {n} {x:.1f} {y:.1f} {int(shown)}'
        for i, locations in enumerate(part_locs, 1)
        for n, (x, y, shown) in enumerate(locations, 1)
    )
    write_lines(root / 'parts/part_locs.txt', places)
    write_lines(root / 'part_masks/labels.txt', (f'{label} {part}' for part, label in LABELS.items()))


def write_class_tables(root, codes, looks):
    """Write class names and attributes in percent: 100 if the class has the look, else 0."""
    write_lines(root / 'classes.txt', (f'{n} {class_name(n, code)}' for n, code in enumerate(codes, 1)))
    attributes = [f'{group}::{look}' for group, values in looks.values() for look in values]
    write_lines(root / 'attributes/attributes.txt', (f'{n} {name}' for n, name in enumerate(attributes, 1)))
    values = [len(values) for _, values in looks.values()]  # number of looks per part
    rows = (' '.join(f'{100 * (one == n):.1f}' for one, k in zip(code, values) for n in range(k)) for code in codes)
    write_lines(root / 'attributes/class_attribute_labels_continuous.txt', rows)


def box_line(path, drawn):
    """path,x0,y0,x1,y1 in px, the far sides at most width - 1 and height - 1."""
    x, y, w, h = drawn.box
    return f'{path},{x},{y},{min(x + w, drawn.width - 1)},{min(y + h, drawn.height - 1)}'


def write_metadata(root, jobs, results):
    """Write the data loaders' split files."""
    for split in SPLITS:
        rows = [(job, drawn) for job, drawn in zip(jobs, results) if job.split == split]
        write_lines(root / split / 'image_ids.txt', (job.path for job, _ in rows))
        write_lines(root / split / 'class_labels.txt', (f'{job.path},{job.label}' for job, _ in rows))
        sizes = (f'{job.path},{drawn.width},{drawn.height}' for job, drawn in rows)
        write_lines(root / split / 'image_sizes.txt', sizes)
        write_lines(root / split / 'localization.txt', (box_line(job.path, drawn) for job, drawn in rows))


def expected_files(args, kind):
    """Relative paths of a complete folder; kind: 'data' or 'metadata'."""
    if kind == 'metadata':
        return {MARKER} | {f'{split}/{name}.txt' for split in SPLITS for name in SPLIT_TABLES}
    files = set(DATA_TABLES)
    for job in list_jobs(args, ''):
        mask = job.path.replace('.jpg', '.png')
        files |= {f'{folder}/{job.path if "images" in folder else mask}' for folder in folders_of(job)}
    return files
