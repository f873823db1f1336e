"""Data sets that are folders of photographs: DIR/train/CLASS/*.jpg, with or without DIR/val and DIR/test.

The names of the folders are the names of the classes. Where val or test is not there, it is drawn from train, class by
class, by a seed. What a network was trained on is written down as split.json in its experiment folder, and every later
command takes it up from there.
"""

import os
import random
from typing import NamedTuple

import util
from wsol.errors import MissingFile, UserError
from wsol.masks import check_mask_size
from wsol.photographs import SUFFIXES, other_endings, photograph_size

from .texts import read_csv, read_object

NAME = 'folder'  # of the data set, as --dataset names it
FILE = 'split.json'
SPLITS = ('train', 'val', 'test')
DRAWN = 0.15  # share of a class's training images that each missing split takes, at least one image
BOXES = 'boxes.csv'  # rows path,x0,y0,x1,y1; the path is below DIR, the box in pixels of the photograph
MASKS = 'masks'  # folder of <path>.png, or with the photograph's ending replaced


class FolderSplit(NamedTuple):
    """What split.json says."""

    classes: list  # names; a class's number is its place
    seed: int | None  # that the missing splits were drawn by; None: nothing was drawn
    drawn: list  # names of the splits that were
    images: dict  # {split: [path below DIR, ...]}; the folder after the split's own is the class
    left_out: dict = {}  # likewise, those that were missing at this training: they stay on their side

    def labels(self, name):
        """The class numbers of a split's images."""
        number = {one: y for y, one in enumerate(self.classes)}
        return [number[image_id.split('/')[1]] for image_id in self.images[name]]


def _images_below(root, folder):
    """Sorted paths below `root` of the photographs in root/folder and its folders; hidden ones are left out."""
    found = []
    for place, folders, names in os.walk(os.path.join(root, folder), followlinks=True):
        folders[:] = [one for one in folders if not one.startswith('.')]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith('.'):
                found.append(os.path.relpath(os.path.join(place, name), root).replace(os.sep, '/'))
    return sorted(found)


def told_others(root):
    """A line on the files of the splits that do not end as photographs do and are left out, None without any."""
    files = []
    for split in SPLITS:
        for _, folders, names in os.walk(os.path.join(root, split), followlinks=True):
            folders[:] = [one for one in folders if not one.startswith('.')]
            files += [name for name in names if not name.startswith('.')]
    return other_endings(root, files)


def scan(root):
    """{split: {class name: [path below `root`, ...]}} of the folders that are there; what cannot be trained on is a
    UserError."""
    if not os.path.isdir(os.path.join(root, 'train')):
        raise MissingFile(
            f'--data_root={root} has no folder train: put the photographs of each class into {root}/train/CLASS/'
        )
    found = {}
    for split in SPLITS:
        place = os.path.join(root, split)
        if os.path.isdir(place):
            names = sorted(one for one in os.listdir(place) if os.path.isdir(os.path.join(place, one)))
            found[split] = {one: _images_below(root, f'{split}/{one}') for one in names if not one.startswith('.')}
    _check_classes(root, found)
    return found


def _check_classes(root, found):
    """A UserError for classes that cannot be told apart or have no training images, and for a split without images."""
    train = found['train']
    spelt = {}
    for split, classes in found.items():
        for name in classes:
            other = spelt.setdefault(name.lower(), name)
            if other != name:
                raise UserError(f'{root} has classes {other} and {name}, which differ only in case: rename one folder')
            if name not in train:
                raise UserError(f'class {name} of {root}/{split} has no training images: put some into train/{name}')
        if not any(classes.values()):
            raise UserError(f'{root}/{split} holds no photographs in class folders: fill it, or take it away')
    for name, images in train.items():
        if not images:
            raise UserError(f'class {name} is empty: {root}/train/{name} holds no photograph; fill it, or remove it')
    if len(train) < 2:
        raise UserError(f'{root}/train has one class, {next(iter(train))}: a classifier needs at least two folders')


def make(root, seed):
    """The `FolderSplit` of a folder; the same seed draws the same val and test where they are missing."""
    found = scan(root)
    drawn = [split for split in ('val', 'test') if split not in found]
    images = {split: [one for row in found.get(split, {}).values() for one in row] for split in SPLITS}
    if drawn:
        images['train'] = []
        for name, row in found['train'].items():
            count = max(1, round(DRAWN * len(row)))
            if len(row) <= count * len(drawn):
                raise UserError(
                    f'class {name} has {len(row)} images in {root}/train, too few to draw {" and ".join(drawn)} from '
                    f'them too: add some, or give {root}/{drawn[0]}'
                )
            row = random.Random(f'{seed}/{name}').sample(row, len(row))
            for split in drawn:
                images[split] += sorted(row[:count])
                row = row[count:]
            images['train'] += sorted(row)
    return FolderSplit(list(found['train']), seed if drawn else None, drawn, images)


def write(folder, split):
    """Write split.json into an experiment folder."""
    os.makedirs(folder, exist_ok=True)
    util.write_json(os.path.join(folder, FILE), split._asdict())


def read(folder):
    """The `FolderSplit` of an experiment folder, None where it has none; a damaged file is a UserError."""
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        return None
    content = read_object(path, 'train again')
    try:
        split = FolderSplit(**content)
        assert all(len(split.labels(name)) == len(split.images[name]) for name in SPLITS)
        assert all({one.split('/')[1] for one in row} <= {*split.classes} for row in split.left_out.values())
        return split
    except (AssertionError, AttributeError, LookupError, TypeError) as error:
        raise UserError(f'{path} is damaged ({type(error).__name__}: {error}): train again') from None


def place(*folders):
    """The first of these folders that holds a split.json, else the last; None are passed over."""
    folders = [folder for folder in folders if folder is not None]
    return next((folder for folder in folders if os.path.isfile(os.path.join(folder, FILE))), folders[-1])


def known(folder, root, name):
    """The `FolderSplit` of an experiment folder, or, without its split.json, that of DIR's own folders.

    A split that would have to be drawn is a UserError then: nobody knows what the network was trained on.
    """
    split = read(folder)
    if split is None:
        split = make(root, 0)
        if name in split.drawn:
            raise UserError(
                f'{root} has no folder {name}, and no {FILE} beside the checkpoint or in {folder} says which images a '
                f'training left for it: give {root}/{name}, or the experiment of the training'
            )
    return split


def take_up(root, folders, seed):
    """The `FolderSplit` of a new training, by the first split.json in `folders` that names photographs of `root`.

    Where more than half of its photographs are there it is kept, without those that are missing. Otherwise it is of
    another folder: a new split is drawn, in which the photographs of both stay on their side. So what one network of
    the two is tested on, the other is not trained on.
    """
    for folder in folders:
        written = read(folder)
        split = written and _as_there_is(written, root)
        if split and _is_of(split):
            return _usable(split, root)
        if split and any(split.images.values()):
            return _usable(_with_sides(make(root, seed), split), root)
    return make(root, seed)


def go_on(root, folder):
    """The `FolderSplit` of a training that goes on in its folder, without what is missing; None where it has none.

    Where less than half of the photographs is there the folder is another: a UserError.
    """
    written = read(folder)
    if written is None:
        return None
    split = _as_there_is(written, root)
    if not _is_of(split):
        raise UserError(
            f'{_count(split.left_out)} photographs of {os.path.join(folder, FILE)} are missing from {root}: give the '
            '--data_root that the training began with, or another --experiment_name'
        )
    return _usable(split, root)


def told(split, root):
    """A line on the photographs of a split that are missing, None where there are none."""
    gone = [one for row in split.left_out.values() for one in row]
    more = f' and {len(gone) - 3} more' if gone[3:] else ''
    return (
        f'missing from {root} and left out, all others stay in their split: {", ".join(gone[:3])}{more}'
        if gone
        else None
    )


def _count(images):
    return sum(map(len, images.values()))


def _is_of(split):
    """Is more than half of a split there?"""
    return _count(split.images) > _count(split.left_out)


def _as_there_is(split, root):
    """The split, with what is missing from `root` moved to left_out and what is back moved to its place."""
    images = {}
    gone = {}
    for name in SPLITS:
        every = [*split.images[name], *split.left_out.get(name, ())]
        there = [one for one in every if os.path.isfile(os.path.join(root, one))]
        gone[name] = sorted({*every} - {*there})
        images[name] = _sorted(split, there) if split.left_out.get(name) else there
    return split._replace(images=images, left_out={name: row for name, row in gone.items() if row})


def _sorted(split, image_ids):
    """Images in the order of `make`: class by class, by name."""
    number = {one: y for y, one in enumerate(split.classes)}
    return sorted(image_ids, key=lambda one: (number[one.split('/')[1]], one))


def _with_sides(split, other):
    """A split in which the images that `other` names too are where it has them."""
    side = {one: name for name in SPLITS for one in other.images[name]}
    every = [(one, side.get(one, name)) for name in SPLITS for one in split.images[name]]
    images = {name: _sorted(split, [one for one, where in every if where == name]) for name in SPLITS}
    return split._replace(images=images)


def _usable(split, root):
    """The split; a UserError where nothing is left of a part of it that a training needs."""
    for name in SPLITS:
        if not split.images[name]:
            raise UserError(f'no photograph of the split {name} is left in {root}: restore some of them')
    for y in sorted({*range(len(split.classes))} - {*split.labels('train')}):
        raise UserError(f'class {split.classes[y]} has no training image left in {root}: restore some of them')
    return split


def truth_kind(root):
    """'box' or 'mask', as what DIR holds beside the photographs; None for neither."""
    if os.path.isfile(os.path.join(root, BOXES)):
        return 'box'
    return 'mask' if os.path.isdir(os.path.join(root, MASKS)) else None


def read_boxes(root):
    """{path: [(line, (x0, y0, x1, y1)), ...]} of boxes.csv, {} where there is none."""
    path = os.path.join(root, BOXES)
    table = {}
    if not os.path.isfile(path):
        return table
    for number, (image_id, *cells) in read_csv(path, ('path', 'x0', 'y0', 'x1', 'y1'), joined=True):
        try:
            table.setdefault(image_id, []).append((number, tuple(map(int, cells))))
        except ValueError:
            raise UserError(f'{path}, line {number}: not path,x0,y0,x1,y1 in whole numbers') from None
    return table


def checked_boxes(root, image_id, size, rows):
    """The boxes of a photograph of (width, height), from its rows of `read_boxes`; one that is not within it is a
    UserError."""
    width, height = size
    for number, (x0, y0, x1, y1) in rows:
        if not (0 <= x0 <= x1 <= width and 0 <= y0 <= y1 <= height):
            raise UserError(
                f'{os.path.join(root, BOXES)}, line {number}: not a box of {image_id}, which is {width} x {height} '
                'pixels: give x0,y0,x1,y1 with x0 <= x1 and y0 <= y1 inside it'
            )
    return [box for _, box in rows]


def boxes(root, image_ids):
    """{path: (its boxes [(x0, y0, x1, y1), ...], its (width, height))}; an image without one is a UserError."""
    table = read_boxes(root)
    missing = [image_id for image_id in image_ids if image_id not in table]
    if missing:
        raise UserError(
            f'{os.path.join(root, BOXES)} has no row for {missing[0]} ({len(missing)} images lack one): add it'
        )
    sizes = {image_id: photograph_size(os.path.join(root, image_id)) for image_id in image_ids}
    return {one: (checked_boxes(root, one, size, table[one]), size) for one, size in sizes.items()}


def checked_mask(root, image_id, size):
    """The path below `root` of the mask of a photograph of (width, height); without one, or of another size, it is a
    UserError."""
    names = [f'{MASKS}/{image_id}.png', f'{MASKS}/{os.path.splitext(image_id)[0]}.png']
    there = [name for name in names if os.path.isfile(os.path.join(root, name))]
    if not there:
        raise MissingFile(f'no mask of {image_id} in {root}: neither {" nor ".join(names)} is a file')
    check_mask_size(os.path.join(root, there[0]), size)
    return there[0]


def masks(root, image_ids):
    """{path: ([its mask's path below `root`], None)}, as `pixels.read_ground_truth` takes it."""
    sizes = {image_id: photograph_size(os.path.join(root, image_id)) for image_id in image_ids}
    return {one: ([checked_mask(root, one, size)], None) for one, size in sizes.items()}
