"""Writes ToyBirds, a drawn bird data set in the layout of CUB-200-2011, with part masks.

    python scripts/make_toybirds.py --data_root dataset --metadata_root metadata

A class is a code of eight bits: one of two looks for each of eight parts (PART_LOOKS in toybirds_render.py); pose, colours, light,
background and distractors vary alike in all classes. Written are `<data_root>/ToyBirds` (images, val_images, segmentations, part_masks,
parts, attributes, boxes and splits as CUB has them) and `<metadata_root>/ToyBirds/{train,val,test}`. The same arguments give the same
bytes. Exit code 2: bad arguments, or something else is in the way; nothing is touched then.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from toybirds_render import CUB_PARTS, LABELS, PART_LOOKS, PARTS, render_bird
from tqdm import tqdm

from wsol.errors import AlreadyThere

NAME, MARKER = 'ToyBirds', 'toybirds.json'
SPLITS = ('train', 'val', 'test')
SQUARES = (
    (3, 6),
    (0, 7),
    (1, 2),
    (4, 5),
    (1, 5),
    (2, 3),
    (0, 4),
    (6, 7),
)  # the two parts (indices of PARTS) a square of classes varies
GROUP_OF = (
    0,
    0,
    1,
    2,
    3,
    4,
    5,
    6,
)  # bill and crown are both 'head' for cue localization, so they count as one difference


def count_differences(codes):
    """Pairs of codes (tuples of eight bits) by the number of part groups that differ; {number: pairs}."""
    found = {}
    for one, other in combinations(codes, 2):
        number = len({GROUP_OF[i] for i in range(len(PARTS)) if one[i] != other[i]})
        found[number] = found.get(number, 0) + 1
    return found


@cache
def design_classes(count):
    """The codes of `count` classes, a tuple of tuples of eight bits (0 the first look of a part, 1 the second); no randomness.

    Squares of four classes that share six looks and have all four combinations of two others: each square holds four pairs that differ
    in one part. The shared looks of a square are those that keep the looks of all parts balanced and, among these, give the most even
    numbers of pairs with 1, 2 and 3 differing part groups.
    """
    codes = []
    while len(codes) < count:
        first, second = SQUARES[len(codes) // 4 % len(SQUARES)]
        best = None
        for number in range(2 ** len(PARTS)):
            base = [number >> i & 1 for i in range(len(PARTS))]
            square = [
                tuple(base[i] ^ (i == first and a) ^ (i == second and b) for i in range(len(PARTS)))
                for a, b in ((0, 0), (1, 1), (0, 1), (1, 0))
            ][: count - len(codes)]
            if set(square) & set(codes):
                continue
            pairs = count_differences(codes + square)
            imbalance = ((np.sum(codes + square, axis=0) * 2 - len(codes + square)) ** 2).sum()
            key = (imbalance, -min(pairs.get(n, 0) for n in (1, 2, 3)), -pairs.get(1, 0), number)
            best = min(best or (key, square), (key, square))
        codes += best[1]
    return tuple(codes)


def class_name(number, code):
    """Folder name of class `number` (from 1), as CUB writes it."""
    return f'{number:03d}.Toybird_' + ''.join(map(str, code))


def looks_of(code):
    """{part: look} of a code."""
    return {part: PART_LOOKS[part][1][bit] for part, bit in zip(PARTS, code)}


@dataclass(frozen=True)
class Job:
    """One picture to make: its place in the set (label from 0, index within class and split), its path and its folder `root`."""

    split: str
    label: int
    index: int
    path: str
    looks: dict
    seed: int
    size: int
    root: str


def list_jobs(args, root):
    """All pictures, in the order of the files: by class, then train, val, test. Image numbers count train and test only, from 1."""
    jobs, number = [], 0
    for label, code in enumerate(design_classes(args.classes)):
        folder = class_name(label + 1, code)
        for split in SPLITS:
            for index in range(getattr(args, split)):
                number += split != 'val'
                running = index + 1 + (args.train if split == 'test' else 0)
                name = f'{folder[4:]}_{running:04d}' + (f'_{number}' if split != 'val' else '')
                jobs.append(
                    Job(split, label, index, f'{folder}/{name}.jpg', looks_of(code), args.seed, args.size, str(root))
                )
    return jobs


def render_job(job):
    """Draw and write one picture (and its masks, unless it is a validation picture).

    Returns (width, height, box (x, y, w, h), part locations [15, 3]).
    """
    cv2.setNumThreads(1)
    bird = render_bird(
        job.looks, np.random.default_rng([job.seed, SPLITS.index(job.split), job.label, job.index]), job.size
    )
    root = Path(job.root)
    Image.fromarray(bird.image).save(root / ('val_images' if job.split == 'val' else 'images') / job.path, quality=95)
    if job.split != 'val':
        mask = Path(job.path).with_suffix('.png')
        Image.fromarray(bird.segmentation).save(root / 'segmentations' / mask, compress_level=3)
        Image.fromarray(bird.labels).save(root / 'part_masks' / mask, compress_level=3)
    height, width = bird.labels.shape
    return width, height, cv2.boundingRect(bird.segmentation), bird.part_locs


def show_progress(results, total):
    """Pass results on; a bar on a terminal, else a line every tenth. All of it on stderr."""
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
        for folder in ['val_images'] if job.split == 'val' else ['images', 'segmentations', 'part_masks']:
            (Path(job.root) / folder / job.path).parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(
        workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    ) as pool:  # Ctrl-C: ours
        try:
            return list(show_progress(pool.map(render_job, jobs, chunksize=8), len(jobs)))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines))


def write_layout(root, codes, jobs, results):
    """CUB's text files, for the pictures of train and test."""
    listed = [(job, *result) for job, result in zip(jobs, results) if job.split != 'val']
    rows = list(enumerate(listed, start=1))  # (image id, (job, width, height, box, part locations))
    write_lines(root / 'images.txt', (f'{i} {job.path}' for i, (job, *_) in rows))
    write_lines(root / 'image_class_labels.txt', (f'{i} {job.label + 1}' for i, (job, *_) in rows))
    write_lines(root / 'train_test_split.txt', (f'{i} {int(job.split == "train")}' for i, (job, *_) in rows))
    write_lines(
        root / 'bounding_boxes.txt', (' '.join([str(i), *(f'{v:.1f}' for v in box)]) for i, (_, _, _, box, _) in rows)
    )
    write_lines(root / 'classes.txt', (f'{n} {class_name(n, code)}' for n, code in enumerate(codes, start=1)))
    write_lines(root / 'parts/parts.txt', (f'{n} {name}' for n, name in enumerate(CUB_PARTS, start=1)))
    write_lines(
        root / 'parts/part_locs.txt',
        (
            f'{i} {n} {x:.1f} {y:.1f} {int(shown)}'
            for i, (*_, locations) in rows
            for n, (x, y, shown) in enumerate(locations, start=1)
        ),
    )
    write_lines(root / 'part_masks/labels.txt', (f'{label} {part}' for part, label in LABELS.items()))
    attributes = [f'{group}::{look}' for group, looks in PART_LOOKS.values() for look in looks]
    write_lines(root / 'attributes/attributes.txt', (f'{n} {name}' for n, name in enumerate(attributes, start=1)))
    write_lines(
        root / 'attributes/class_attribute_labels_continuous.txt',
        (' '.join(f'{100 * (bit == look):.1f}' for bit in code for look in (0, 1)) for code in codes),
    )


def write_metadata(root, jobs, results):
    """The split files that the data loaders read; boxes are x0,y0,x1,y1 in pixels, the far sides at most width - 1 and height - 1."""
    for split in SPLITS:
        rows = [(job.path, job.label, *result[:3]) for job, result in zip(jobs, results) if job.split == split]
        write_lines(root / split / 'image_ids.txt', (path for path, *_ in rows))
        write_lines(root / split / 'class_labels.txt', (f'{path},{label}' for path, label, *_ in rows))
        write_lines(
            root / split / 'image_sizes.txt', (f'{path},{width},{height}' for path, _, width, height, _ in rows)
        )
        write_lines(
            root / split / 'localization.txt',
            (
                f'{path},{x},{y},{min(x + w, width - 1)},{min(y + h, height - 1)}'
                for path, _, width, height, (x, y, w, h) in rows
            ),
        )


def expected_files(args, kind):
    """The relative paths that a complete folder holds; kind: 'data' or 'metadata'."""
    if kind == 'metadata':
        return {
            f'{split}/{name}.txt'
            for split in SPLITS
            for name in ('image_ids', 'class_labels', 'image_sizes', 'localization')
        } | {MARKER}
    files = {
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
    }
    for job in list_jobs(args, ''):
        mask = job.path.replace('.jpg', '.png')
        files |= (
            {f'val_images/{job.path}'}
            if job.split == 'val'
            else {f'images/{job.path}', f'segmentations/{mask}', f'part_masks/{mask}'}
        )
    return files


def check_target(folder, args, kind):
    """True: complete with these arguments; False: absent. Raises FileExistsError, one line, when anything else is there."""
    advice = f'move it away or choose another --{kind}_root'
    if not os.path.lexists(folder):
        return False
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        raise AlreadyThere(
            f'{folder} exists and is not a {NAME} folder of this program (no readable {MARKER}): {advice}'
        ) from None
    wanted = arguments_of(args)
    if found != wanted:
        raise AlreadyThere(f'{folder} was made with {json.dumps(found)}, asked for is {json.dumps(wanted)}: {advice}')
    missing = [name for name in sorted(expected_files(args, kind)) if not (folder / name).is_file()]
    if missing:
        raise AlreadyThere(
            f'{folder} is incomplete ({len(missing)} files are missing, the first is {missing[0]}): {advice}'
        )
    return True


def arguments_of(args):
    """The arguments that decide the content, as the marker file holds them."""
    return {name: getattr(args, name) for name in ('classes', 'train', 'val', 'test', 'size', 'seed')}


def build(args, targets):
    """Make everything in temporary siblings of targets ({kind: folder}); rename those whose target is absent; leave nothing behind."""
    scratch = {}
    try:
        for kind, folder in targets.items():
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch[kind] = Path(tempfile.mkdtemp(prefix=f'.{NAME}-', dir=folder.parent))
            scratch[kind].chmod(0o755)
        jobs = list_jobs(args, scratch['data'])
        results = render_all(jobs, args.workers)
        write_layout(scratch['data'], design_classes(args.classes), jobs, results)
        write_metadata(scratch['metadata'], jobs, results)
        for kind, folder in targets.items():
            write_lines(scratch[kind] / MARKER, [json.dumps(arguments_of(args))])
            if not os.path.lexists(folder):
                scratch[kind].rename(folder)
    finally:
        for folder in scratch.values():
            shutil.rmtree(folder, ignore_errors=True)


def parse_args(argv=None):
    """Arguments of the command; a bad value ends the program with one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data_root', type=Path, default=Path('dataset'))
    parser.add_argument('--metadata_root', type=Path, default=Path('metadata'))
    parser.add_argument('--classes', type=int, default=24, help='20 to 64')
    for split, count in zip(SPLITS, (120, 10, 20)):
        parser.add_argument(f'--{split}', type=int, default=count, help='images of a class')
    parser.add_argument('--size', type=int, default=256, help='shorter side of an image in pixels, 224 to 1024')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes; no influence on the result')
    args = parser.parse_args(argv)
    for name, low, high in (
        ('classes', 20, 64),
        ('train', 1, 9999),
        ('val', 1, 9999),
        ('test', 1, 9999),
        ('size', 224, 1024),
        ('seed', 0, 2**32 - 1),
        ('workers', 1, 1024),
    ):
        if not low <= getattr(args, name) <= high:
            fail(f'--{name} {getattr(args, name)}: give a whole number from {low} to {high}')
    return args


def fail(message):
    print(f'make_toybirds: {message}', file=sys.stderr)
    sys.exit(2)


def main(argv=None):
    args = parse_args(argv)
    targets = {'data': args.data_root / NAME, 'metadata': args.metadata_root / NAME}
    try:
        done = [check_target(folder, args, kind) for kind, folder in targets.items()]
    except FileExistsError as error:
        fail(str(error))
    if all(done):
        print(f'{NAME} is complete: {targets["data"]} and {targets["metadata"]}; nothing written')
        return
    try:
        build(args, targets)
    except OSError as error:
        fail(f'{error}; nothing was left behind')
    except KeyboardInterrupt:
        print('make_toybirds: interrupted; nothing was left behind', file=sys.stderr)
        sys.exit(130)
    print(
        f'{NAME}: {args.classes} classes, {args.classes * (args.train + args.val + args.test)} images -> '
        f'{targets["data"]} and {targets["metadata"]}'
    )


if __name__ == '__main__':
    main()
