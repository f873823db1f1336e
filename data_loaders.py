"""Data sets: the table, the metadata parsers, the transforms and the loaders.

A split is described by metadata/<set>/<split>/ (image_ids, class_labels, image_sizes, localization .txt) and its images
lie under the split's root. Mistakes in the data are a UserError or OSError of one line.
"""

import os
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from data import folders
from data.texts import read_object, read_text
from wsol.errors import MissingFile, UserError
from wsol.photographs import opened, read_photograph
from wsol.preprocessing import PAPER, ImageLoader, make_transform

SPLITS = folders.SPLITS


class DatasetInfo(NamedTuple):
    """A row of the table."""

    num_classes: int | None  # None: as many as the training labels name
    roots: dict  # {split: candidate image roots below the data root}
    localization: str | None  # 'box' or 'mask' ground truth; None: as the data root has it (data/truth.py)
    parts: str | None  # the folder in CUB's layout, with part annotations
    counts: dict  # {split: published image count}


DATASETS = {
    'CUB': DatasetInfo(
        200,
        {'train': ('CUB/images',), 'val': ('CUBV2', 'CUB/CUBV2'), 'test': ('CUB/images',)},
        'box',
        'CUB',
        {'train': 5994, 'val': 1000, 'test': 5794},
    ),
    'ILSVRC': DatasetInfo(
        1000,
        {'train': ('ILSVRC',), 'val': ('ImageNetV2', 'ILSVRC'), 'test': ('ILSVRC',)},
        'box',
        None,
        {'train': 1281167, 'val': 10000, 'test': 50000},
    ),
    'OpenImages': DatasetInfo(
        100, dict.fromkeys(SPLITS, ('OpenImages',)), 'mask', None, {'train': 29819, 'val': 2500, 'test': 5000}
    ),
    'ToyBirds': DatasetInfo(
        None,
        {'train': ('ToyBirds/images',), 'val': ('ToyBirds/val_images',), 'test': ('ToyBirds/images',)},
        'box',
        'ToyBirds',
        {},
    ),
    'ToyBirdsSingle': DatasetInfo(  # classes that differ from one bird by one part each
        None,
        {
            'train': ('ToyBirdsSingle/images',),
            'val': ('ToyBirdsSingle/val_images',),
            'test': ('ToyBirdsSingle/images',),
        },
        'box',
        'ToyBirdsSingle',
        {},
    ),
    folders.NAME: DatasetInfo(None, {}, None, None, {}),  # DIR/train/CLASS/*.jpg, DIR being the data root
}


class Split(NamedTuple):
    """One split of a data set."""

    name: str
    root: str  # folder of its images
    folder: str  # of its metadata files, or of split.json
    image_ids: list  # paths below root
    labels: list  # ints, aligned with the ids
    num_classes: int
    photographs: bool = False  # of a user's own: read as a person sees them, not as the protocol does
    sizes: dict | None = None  # {image id: (width, height)} that its images must have; None: any


def _lines(path):
    """The lines of a metadata file, without a trailing empty one."""
    if not os.path.isfile(path):
        raise MissingFile(
            f'no metadata file {path}: make it with scripts/make_metadata.py or '
            'scripts/make_toybirds.py, or give another --metadata_root'
        )
    return read_text(path).splitlines()


def _rows(path, columns):
    """The comma-separated rows of a metadata file; a row of another width is a UserError that names file and line."""
    rows = [line.split(',') for line in _lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) != columns:
            raise UserError(f'{path}, line {number}: {len(row)} columns instead of {columns}: {",".join(row)[:80]!r}')
    return rows


def _integers(path, columns):
    """{image id: [ints of each row]} of a metadata file whose rows are an id and columns - 1 integers."""
    table = {}
    for number, (image_id, *values) in enumerate(_rows(path, columns), 1):
        try:
            table.setdefault(image_id, []).append(tuple(int(value) for value in values))
        except ValueError:
            raise UserError(f'{path}, line {number}: not an integer in {",".join(values)!r}') from None
    return table


def read_image_ids(folder, proxy=False):
    """Image ids of a split's metadata folder, in file order; `proxy` reads image_ids_proxy.txt."""
    return _lines(os.path.join(folder, 'image_ids_proxy.txt' if proxy else 'image_ids.txt'))


def read_labels(folder):
    """{image id: class label from 0}."""
    return {key: rows[0][0] for key, rows in _integers(os.path.join(folder, 'class_labels.txt'), 2).items()}


def read_sizes(folder):
    """{image id: (width, height)} in pixels."""
    return {key: rows[0] for key, rows in _integers(os.path.join(folder, 'image_sizes.txt'), 3).items()}


def read_superclasses(path):
    """{class: [classes]} from a JSON file of class numbers (keys as text, as JSON has them)."""
    if not os.path.isfile(path):
        raise MissingFile(f'no --superclass file {path}: scripts/make_superclasses.py makes one')
    advice = 'it must be {"class": [classes]}, as scripts/make_superclasses.py writes it'
    try:
        sets = {int(key): [int(member) for member in members] for key, members in read_object(path, advice).items()}
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'--superclass={path} is not of class numbers ({error}): {advice}') from None
    for key, members in sets.items():
        if key < 0 or not members or min(members) < 0:
            raise UserError(f'--superclass={path}: class {key} has the set {members}: give class numbers from 0')
    return sets


def read_boxes(folder):
    """{image id: [(x0, y0, x1, y1), ...]} in pixels of the original image."""
    return _integers(os.path.join(folder, 'localization.txt'), 5)


def read_masks(folder):
    """{image id: ([mask path, ...], ignore path)}; paths are relative to the mask root. The ignore mask is on the first
    row."""
    path = os.path.join(folder, 'localization.txt')
    table = {}
    for number, (image_id, mask, ignore) in enumerate(_rows(path, 3), 1):
        if image_id in table and ignore:
            raise UserError(f'{path}, line {number}: a second ignore mask for {image_id}')
        table.setdefault(image_id, ([], ignore))[0].append(mask)
    return table


def dataset_info(name):
    """The table's row; an unknown name is a UserError that lists the valid ones."""
    if name not in DATASETS:
        raise UserError(f'unknown data set {name!r}: choose one of {", ".join(DATASETS)}')
    return DATASETS[name]


def image_root(data_root, dataset, split, first_image):
    """The first candidate root that holds the split's first image; none is a MissingFile that names what was
    tried."""
    candidates = [os.path.join(data_root, root) for root in dataset_info(dataset).roots[split]]
    for root in candidates:
        if os.path.isfile(os.path.join(root, first_image)):
            return root
    raise MissingFile(
        f'no images of {dataset} {split}: {first_image} is not in {" or ".join(candidates)}; '
        'give the right --data_root, or prepare the data (docs/data.md)'
    )


def class_count(dataset, metadata_root):
    """The data set's class count; where the table has none, one more than the largest training label.

    Of a folder of photographs, metadata_root is the folder of its split.json.
    """
    count = dataset_info(dataset).num_classes
    if dataset == folders.NAME:
        split = folders.read(metadata_root)
        if split is None:
            raise MissingFile(f'no {folders.FILE} in {metadata_root}: give the experiment folder of a training')
        return len(split.classes)
    if count:
        return count
    folder = os.path.join(metadata_root, dataset, 'train')
    labels = read_labels(folder)
    if not labels:
        raise UserError(f'{folder}/class_labels.txt lists no image: make it with scripts/make_toybirds.py')
    return 1 + max(labels.values())


def split_ids(dataset, split, data_root, metadata_root):
    """The image ids of a split, in order."""
    if dataset == folders.NAME:
        return folders.known(metadata_root, data_root, split).images[split]
    return read_image_ids(os.path.join(metadata_root, dataset, split))


def load_split(dataset, split, data_root, metadata_root, proxy=False):
    """The `Split`, after the cheap checks: labels in range, the first image's root found, every image there.

    Of a folder of photographs, metadata_root is the folder of its split.json.
    """
    dataset_info(dataset)
    if dataset == folders.NAME:
        found = _folder_split(split, data_root, metadata_root, proxy)
    else:
        found = _listed_split(dataset, split, data_root, metadata_root, proxy)
    image_ids = found.image_ids
    missing = missing_files(found.root, image_ids)
    if missing:
        what = (
            f'restore the file: the split in {found.folder} names it'
            if found.photographs
            else f'scripts/check_data.py --dataset={dataset} lists all of them'
        )
        more = f' and {len(missing) - 1} more' if missing[1:] else ''
        raise MissingFile(f'missing image {os.path.join(found.root, missing[0])}{more}: {what}')
    for image_id in image_ids[:4]:
        read_image(os.path.join(found.root, image_id), found.photographs)
    return found


def missing_files(root, names):
    """Those of the paths below `root` that are not there. Folders are listed once, so that a million names take
    seconds."""
    listed = {}
    missing = []
    for name in names:
        folder, base = os.path.split(name)
        if folder not in listed:
            place = os.path.join(root, folder)
            listed[folder] = set(os.listdir(place)) if os.path.isdir(place) else set()
        if base not in listed[folder]:
            missing.append(name)
    return missing


def with_sizes(split):
    """The split with the sizes of image_sizes.txt, where that lists any: an image of another size is refused then."""
    sizes = read_sizes(split.folder)
    return split._replace(sizes={image_id: sizes.get(image_id) for image_id in split.image_ids} if sizes else None)


def check_size(split, image_id, size):
    """A UserError where an image is not of the size that the split's files have it."""
    wanted = split.sizes and split.sizes[image_id]
    if wanted and wanted != size:
        raise UserError(
            f'image {os.path.join(split.root, image_id)} is {size[0]} x {size[1]} pixels, {split.folder}/'
            f'image_sizes.txt says {wanted[0]} x {wanted[1]}: boxes and parts would be in the wrong place; restore the '
            'original image, or make the split files anew (scripts/make_metadata.py)'
        )


def _folder_split(split, data_root, metadata_root, proxy):
    """The `Split` of a folder of photographs."""
    if proxy:
        raise UserError(f'--proxy_training_set needs image_ids_proxy.txt, which --dataset={folders.NAME} has not')
    known = folders.known(metadata_root, data_root, split)
    return Split(split, data_root, metadata_root, known.images[split], known.labels(split), len(known.classes), True)


def _listed_split(dataset, split, data_root, metadata_root, proxy):
    """The `Split` that metadata files list."""
    folder = os.path.join(metadata_root, dataset, split)
    image_ids = read_image_ids(folder, proxy)
    labels = read_labels(folder)
    if not image_ids:
        raise UserError(f'{folder}/image_ids.txt lists no image')
    num_classes = class_count(dataset, metadata_root)
    for image_id in image_ids:
        if image_id not in labels:
            raise UserError(f'{folder}/class_labels.txt has no label for {image_id}')
        if not 0 <= labels[image_id] < num_classes:
            raise UserError(
                f'{folder}/class_labels.txt: label {labels[image_id]} of {image_id} is not in '
                f'0..{num_classes - 1} ({dataset} has {num_classes} classes)'
            )
    root = image_root(data_root, dataset, split, image_ids[0])
    return Split(split, root, folder, image_ids, [labels[image_id] for image_id in image_ids], num_classes)


def read_image(path, photograph=False):
    """A Pillow image in RGB; one that cannot be read is a UserError that names it.

    A `photograph` is read as a person sees it; other images as the protocol does, by their stored pixels.
    """
    if photograph:
        return read_photograph(path)
    with opened(path) as image:
        image.load()
        return image if image.mode == 'RGB' else image.convert('RGB')  # which copies an RGB image


class ImageLabelDataset(Dataset):
    """Items (transform(image, generator), label, image id) of a split.

    The key is epoch * len + index: the augmentation's randomness comes from (seed, epoch, index) alone, whatever the
    worker, the rank or the restart that asks for it.
    """

    def __init__(self, split, transform, seed=0):
        self.split = split
        self.transform = transform
        self.seed = seed

    def __len__(self):
        return len(self.split.image_ids)

    def __getitem__(self, key):
        epoch, index = divmod(key, len(self))
        image_id = self.split.image_ids[index]
        image = read_image(os.path.join(self.split.root, image_id), self.split.photographs)
        check_size(self.split, image_id, image.size)
        words = np.random.SeedSequence((self.seed, epoch, index)).generate_state(2)
        generator = torch.Generator().manual_seed((int(words[0]) << 31) ^ int(words[1]))
        return self.transform(image, generator), self.split.labels[index], image_id


class EpochBatches(Sampler):
    """Batches of keys of one epoch: a permutation drawn from (seed, epoch), cut into batches of batch_size.

    Of each batch the process `rank` of `world` takes every world-th key, so that each image is used once, by one
    process; the last batch may leave a process an empty list. Set `epoch`, and `start`, the batches to leave out,
    before iterating.
    """

    def __init__(self, length, batch_size, seed, rank=0, world=1):
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = self.start = 0

    def __len__(self):
        return -(-self.length // self.batch_size) - self.start

    def __iter__(self):
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        keys = (order + self.epoch * self.length).tolist()
        for first in range(self.start * self.batch_size, self.length, self.batch_size):
            yield keys[first : first + self.batch_size][self.rank :: self.world]


def make_loader(
    split,
    training,
    batch_size,
    workers,
    resize_size=256,
    crop_size=224,
    seed=0,
    batches=None,
    preprocessing=PAPER,
    device=torch.device('cpu'),
    channels_last=False,
):
    """An `ImageLoader` of (images [B, 3, crop, crop] on `device`, labels [B], image ids).

    batches: the keys of each batch; None: in training augmented `EpochBatches`, else all images in order.
    preprocessing: the network's; channels_last: the images' memory format.
    """
    transform = make_transform(training, resize_size, crop_size, preprocessing)
    dataset = ImageLabelDataset(split, transform.pixels, seed)
    if batches is None:
        count = len(dataset)
        batches = (
            EpochBatches(count, batch_size, seed)
            if training
            else [list(range(first, min(first + batch_size, count))) for first in range(0, count, batch_size)]
        )
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=device.type == 'cuda',
        collate_fn=partial(collate, crop_size),
        persistent_workers=workers > 0,
        generator=torch.Generator(),
    )  # its own: a loader draws no number of the run's
    return ImageLoader(loader, preprocessing, device, channels_last)


def collate(crop_size, items):
    """torch's default, and a batch of no pixels where there are no items."""
    if items:
        return default_collate(items)
    return torch.empty(0, crop_size, crop_size, 3, dtype=torch.uint8), torch.empty(0, dtype=torch.long), []
