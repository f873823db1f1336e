"""Data sets that are folders of photographs: DIR/train/CLASS/*.jpg, with or without DIR/val and DIR/test.

Folder names are class names. A missing val or test split is drawn from train, per class, with a seed. Training saves
its split as split.json in the experiment folder, and later commands read it from there.
"""

import os
import random
from typing import NamedTuple

import util
from wsol.errors import MissingFile, UserError
from wsol.photographs import SUFFIXES, other_endings

from .folder_truth import BOXES, MASKS
from .texts import listed, read_object

NAME = 'folder'  # the value of --dataset
FILE = 'split.json'
SPLITS = ('train', 'val', 'test')
DRAWN = 0.15  # share of a class's training images for each missing split; at least one image


class FolderSplit(NamedTuple):
    """The content of split.json."""

    classes: list  # class names, in the order of the class numbers
    seed: int | None  # of the drawn splits; None: nothing was drawn
    drawn: list  # names of the drawn splits
    images: dict  # {split: [path below DIR, ...]}; the second folder of a path is the class
    left_out: dict = {}  # likewise, images missing at this training, which keep their split

    def labels(self, name):
        """The class numbers of a split's images."""
        number = {one: y for y, one in enumerate(self.classes)}
        return [number[image_id.split('/')[1]] for image_id in self.images[name]]


def files_below(folder, above=()):
    """Paths of the files in a folder and its subfolders, without hidden ones; none if the folder does not exist.

    above: the real paths of the folders it was reached through. UserError if a link leads back to one of them.
    """
    here = (*above, os.path.realpath(folder))
    if here[-1] in above:
        raise UserError(f'{folder} is a link to {here[-1]}, which it lies in: its photographs repeat; remove the link')
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        if entry.is_dir() and not entry.name.startswith('.'):
            yield from files_below(entry.path, here)
        elif not entry.name.startswith('.'):
            yield entry.path


def images_below(root, folder):
    """Sorted paths, below `root`, of the photographs in root/folder and its subfolders."""
    images = (path for path in files_below(os.path.join(root, folder)) if path.lower().endswith(SUFFIXES))
    return sorted(os.path.relpath(path, root).replace(os.sep, '/') for path in images)


def other_files_line(root):
    """A line on the ignored files in the splits (no photographs by extension); None if there are none."""
    return other_endings(root, [path for split in SPLITS for path in files_below(os.path.join(root, split))])


def not_read_line(root):
    """A line on folders beside the splits and on photographs outside the classes' folders; None if there are none."""
    known = {*SPLITS, MASKS}
    found = [f'{one.name}/' for one in os.scandir(root) if one.is_dir() and one.name not in known]
    for split in ('', *SPLITS):
        place = os.path.join(root, split)
        names = os.listdir(place) if os.path.isdir(place) else ()
        found += [os.path.join(split, one) for one in names if one.lower().endswith(SUFFIXES)]
    found = sorted(one for one in found if not os.path.basename(one.rstrip('/')).startswith('.'))
    line = f'{root}: not read: {listed(found, 5)}; read are SPLIT/CLASS/ with SPLIT of {", ".join(SPLITS)}'
    return f'{line}; {BOXES}; {MASKS}/' if found else None


def scan(root):
    """{split: {class name: [path below `root`, ...]}} of the existing folders; UserError if they cannot be used."""
    if not os.path.isdir(os.path.join(root, 'train')):
        raise MissingFile(
            f'--data_root={root} has no folder train: put the photographs of each class into {root}/train/CLASS/'
        )
    found = {}
    for split in SPLITS:
        place = os.path.join(root, split)
        if os.path.isdir(place):
            names = sorted(one for one in os.listdir(place) if os.path.isdir(os.path.join(place, one)))
            found[split] = {one: images_below(root, f'{split}/{one}') for one in names if not one.startswith('.')}
    _check_classes(root, found)
    return found


def _check_classes(root, found):
    """UserError for class names that differ only in case, classes without training images, and empty splits."""
    train = found['train']
    spelling = {}  # {lower case: class name}
    for split, classes in found.items():
        for name in classes:
            other = spelling.setdefault(name.lower(), name)
            if other != name:
                raise UserError(f'{root} has classes {other} and {name}, which differ only in case: rename one folder')
            if name not in train:
                raise UserError(f'class {name} of {root}/{split} has no training images: put some into train/{name}')
        if not any(classes.values()):
            raise UserError(f'{root}/{split} holds no photographs in class folders: add some, or remove the folder')
    for name, images in train.items():
        if not images:
            raise UserError(f'class {name} is empty: {root}/train/{name} holds no photograph; add some, or remove it')
    if len(train) < 2:
        raise UserError(f'{root}/train has one class, {next(iter(train))}: a classifier needs at least two folders')


def make(root, seed):
    """The `FolderSplit` of a folder; missing splits are drawn with the seed."""
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
                    f'them: add some, or add {root}/{drawn[0]}'
                )
            row = random.Random(f'{seed}/{name}').sample(row, len(row))
            for split in drawn:
                images[split] += sorted(row[:count])
                row = row[count:]
            images['train'] += sorted(row)
    return FolderSplit(list(found['train']), seed if drawn else None, drawn, images)


def write(folder, split):
    """Write split.json into an experiment folder."""
    util.make_folder(folder)
    util.write_json(os.path.join(folder, FILE), split._asdict())


def read(folder):
    """The `FolderSplit` of an experiment folder; None if it has none, UserError if split.json is damaged."""
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        return None
    content = read_object(path, 'train again')
    try:
        split = FolderSplit(**content)
        rows = [*(split.images[name] for name in SPLITS), *split.left_out.values()]
        unknown = sorted({one.split('/')[1] for row in rows for one in row} - {*split.classes})
        if unknown:
            raise LookupError(f'{unknown[0]} is not one of its classes')
        return split
    except (AttributeError, LookupError, TypeError) as error:
        raise UserError(f'{path} is damaged ({type(error).__name__}: {error}): train again') from None


def locate(*folders):
    """The first of these folders with a split.json, else the last; None entries are skipped."""
    folders = [folder for folder in folders if folder is not None]
    return next((folder for folder in folders if os.path.isfile(os.path.join(folder, FILE))), folders[-1])


def load(folder, root, name):
    """The `FolderSplit` of an experiment folder; without split.json, that of DIR's own folders.

    UserError if the split `name` would have to be drawn, as its images may have been trained on.
    """
    split = read(folder)
    if split is None:
        split = make(root, 0)
        if name in split.drawn:
            raise UserError(
                f'{root} has no folder {name}, and no {FILE} next to the checkpoint or in {folder} lists the images '
                f'left out of training: add {root}/{name}, or give the experiment folder of the training'
            )
    return split


def for_training(root, folders, seed):
    """The `FolderSplit` of a new training, based on the first split.json in `folders` with photographs of `root`.

    If more than half of its photographs exist, it is used without the missing ones. Otherwise it belongs to another
    folder: a new split is drawn, in which photographs of both keep their split, so that no network is trained on test
    images of the other.
    """
    for folder in folders:
        saved = read(folder)
        split = saved and _without_missing(saved, root)
        if split and _most_exist(split):
            return _usable(split, root)
        if split and any(split.images.values()):
            return _usable(_keep_splits(make(root, seed), split), root)
    return make(root, seed)


def for_resuming(root, folder):
    """The `FolderSplit` saved in an experiment folder, without missing photographs; None if there is none.

    UserError if at least half of the photographs are missing: `root` is another folder.
    """
    saved = read(folder)
    if saved is None:
        return None
    split = _without_missing(saved, root)
    if not _most_exist(split):
        raise UserError(
            f'{_count(split.left_out)} photographs of {os.path.join(folder, FILE)} are missing from {root}: give the '
            '--data_root that the training began with, or another --experiment_name'
        )
    return _usable(split, root)


def missing_line(split, root):
    """A line that lists the missing photographs of a split; None if there are none."""
    gone = [one for row in split.left_out.values() for one in row]
    line = f'missing from {root} and left out, all others stay in their split: {listed(gone, 3)}'
    return line if gone else None


def _count(images):
    return sum(map(len, images.values()))


def _most_exist(split):
    """Do more than half of a split's photographs exist?"""
    return _count(split.images) > _count(split.left_out)


def _without_missing(split, root):
    """The split with photographs missing from `root` moved to left_out, and restored ones moved back."""
    images = {}
    gone = {}
    for name in SPLITS:
        every = [*split.images[name], *split.left_out.get(name, ())]
        found = [one for one in every if os.path.isfile(os.path.join(root, one))]
        gone[name] = sorted({*every} - {*found})
        images[name] = _sorted(split, found) if split.left_out.get(name) else found
    return split._replace(images=images, left_out={name: row for name, row in gone.items() if row})


def _sorted(split, image_ids):
    """Images in the order of `make`: by class, then by name."""
    number = {one: y for y, one in enumerate(split.classes)}
    return sorted(image_ids, key=lambda one: (number[one.split('/')[1]], one))


def _keep_splits(split, other):
    """The split with images that are also in `other` moved to the split they have there."""
    side = {one: name for name in SPLITS for one in other.images[name]}
    every = [(one, side.get(one, name)) for name in SPLITS for one in split.images[name]]
    images = {name: _sorted(split, [one for one, where in every if where == name]) for name in SPLITS}
    return split._replace(images=images)


def _usable(split, root):
    """The split itself; UserError if a split or the training images of a class are empty."""
    for name in SPLITS:
        if not split.images[name]:
            raise UserError(f'no photograph of the split {name} is left in {root}: restore some of them')
    for y in sorted({*range(len(split.classes))} - {*split.labels('train')}):
        raise UserError(f'class {split.classes[y]} has no training image left in {root}: restore some of them')
    return split
