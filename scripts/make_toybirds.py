"""Writes ToyBirds, a rendered bird data set in CUB-200-2011's layout, with part masks.

    python scripts/make_toybirds.py --data_root dataset --metadata_root metadata
    python scripts/make_toybirds.py --design=single        a separate data set, ToyBirdsSingle

combined: a class is a combination of looks, one of two for each of eight parts. single: each of the 24 classes differs
from a common bird by the look of one part. The looks are defined in toybirds/classes.py; pose, colours, light,
background and distractors do not depend on the class. Writes `<data_root>/ToyBirds` (images, val_images, segmentations,
part_masks, parts, attributes, boxes and splits, as in CUB) and `<metadata_root>/ToyBirds/{train,val,test}`. The same
arguments give the same bytes. Exit code 2: bad arguments, or a target exists with different content; nothing is changed
then.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import checkout  # noqa: F401
from toybirds.classes import DESIGNS
from toybirds.layout import (
    MARKER,
    NAME,
    SPLITS,
    expected_files,
    list_jobs,
    render_all,
    write_layout,
    write_lines,
    write_metadata,
)

from wsol.errors import AlreadyThere

RANGES = {  # allowed values
    'train': (1, 9999),
    'val': (1, 9999),
    'test': (1, 9999),
    'size': (224, 1024),
    'seed': (0, 2**32 - 1),
    'workers': (1, 1024),
}


def check_target(folder, args, kind):
    """True: complete with these arguments; False: absent. Raises AlreadyThere for anything else."""
    advice = f'move it away or choose another --{kind}_root'
    if not os.path.lexists(folder):
        return False
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        raise AlreadyThere(
            f'{folder} exists and is not a {folder.name} folder of this program (no readable {MARKER}): {advice}'
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
    """The arguments that determine the content, as stored in the marker file."""
    named = {} if args.design == 'combined' else {'design': args.design}
    return named | {name: getattr(args, name) for name in ('classes', 'train', 'val', 'test', 'size', 'seed')}


def build(args, targets):
    """Build everything in temporary siblings of targets ({kind: folder}), then rename those whose target is absent.

    Always removes the temporary folders.
    """
    scratch = {}
    try:
        for kind, folder in targets.items():
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch[kind] = Path(tempfile.mkdtemp(prefix=f'.{NAME}-', dir=folder.parent))
            scratch[kind].chmod(0o755)
        jobs = list_jobs(args, scratch['data'])
        results = render_all(jobs, args.workers)
        design = DESIGNS[args.design]
        write_layout(scratch['data'], design.codes(args.classes), design.looks, jobs, results)
        write_metadata(scratch['metadata'], jobs, results)
        for kind, folder in targets.items():
            write_lines(scratch[kind] / MARKER, [json.dumps(arguments_of(args))])
            if not os.path.lexists(folder):
                scratch[kind].rename(folder)
    finally:
        for folder in scratch.values():
            shutil.rmtree(folder, ignore_errors=True)


def parse_args(argv=None):
    """Parse the arguments; an error ends the program with one line and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data_root', type=Path, default=Path('dataset'))
    parser.add_argument('--metadata_root', type=Path, default=Path('metadata'))
    parser.add_argument('--design', default='combined', choices=tuple(DESIGNS), help='how classes differ')
    parser.add_argument('--classes', type=int, default=24, help='combined: 20 to 64; single: 24')
    for split, count in zip(SPLITS, (120, 10, 20)):
        parser.add_argument(f'--{split}', type=int, default=count, help='images per class')
    parser.add_argument('--size', type=int, default=256, help='shorter side of an image in pixels, 224 to 1024')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes; does not affect the result')
    args = parser.parse_args(argv)
    for name, (low, high) in {'classes': DESIGNS[args.design].classes, **RANGES}.items():
        if not low <= getattr(args, name) <= high:
            allowed = low if low == high else f'a whole number from {low} to {high}'
            design = f' of --design={args.design}' if name == 'classes' else ''
            fail(f'--{name} {getattr(args, name)}{design}: give {allowed}')
    return args


def fail(message):
    """Print a line to standard error and exit with code 2."""
    print(f'make_toybirds: {message}', file=sys.stderr)
    sys.exit(2)


def main(argv=None):
    """Build what is missing and print what was done."""
    args = parse_args(argv)
    name = DESIGNS[args.design].name
    targets = {'data': args.data_root / name, 'metadata': args.metadata_root / name}
    try:
        done = [check_target(folder, args, kind) for kind, folder in targets.items()]
    except AlreadyThere as error:
        fail(str(error))
    if all(done):
        print(f'{name} is complete: {targets["data"]} and {targets["metadata"]}; nothing written')
        return
    try:
        build(args, targets)
    except OSError as error:
        fail(f'{error}; nothing was left behind')
    except KeyboardInterrupt:
        print('make_toybirds: interrupted; nothing was left behind', file=sys.stderr)
        sys.exit(130)
    images = args.classes * (args.train + args.val + args.test)
    print(f'{name}: {args.classes} classes, {images} images -> {targets["data"]} and {targets["metadata"]}')


if __name__ == '__main__':
    main()
