"""The table of data sets, their splits, and the loaders.

Errors in the data are a UserError or OSError of one line.
"""

import os
from collections import Counter
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

import util
from data import folders
from data.metadata import read_image_ids, read_labels, read_sizes
from data.texts import listed
from wsol.errors import MissingFile, UserError
from wsol.photographs import opened, read_photograph
from wsol.preprocessing import PAPER, ImageLoader, make_transform

SPLITS = folders.SPLITS


class DatasetInfo(NamedTuple):
    """A row of the table of data sets."""

    num_classes: int | None  # None: determined by the training labels
    roots: dict  # {split: candidate image roots below the data root}
    localization: str | None  # 'box' or 'mask' ground truth; None: determined by the data root (data/truth.py)
    parts: str | None  # folder in CUB's layout with part annotations
    counts: dict  # {split: published image count}


def _toybirds(name):
    roots = {'train': (f'{name}/images',), 'val': (f'{name}/val_images',), 'test': (f'{name}/images',)}
    return DatasetInfo(None, roots, 'box', name, {})


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
    'ToyBirds': _toybirds('ToyBirds'),
    'ToyBirdsSingle': _toybirds('ToyBirdsSingle'),  # each class differs from one common bird in one part
    folders.NAME: DatasetInfo(None, {}, None, None, {}),  # DATA_ROOT/train/CLASS/*.jpg
}


class Split(NamedTuple):
    """One split of a data set."""

    name: str
    root: str  # folder of the images
    folder: str  # of the metadata files, or of split.json
    image_ids: list  # paths below root
    labels: list  # class numbers of the images
    num_classes: int
    photographs: bool = False  # the user's own: read upright and in sRGB, unlike in the protocol
    sizes: dict | None = None  # {image id: required (width, height)}; None: any size


def dataset_info(name):
    """The `DatasetInfo` of a data set; UserError, listing the valid names, for an unknown one."""
    if name not in DATASETS:
        raise UserError(f'unknown data set {name!r}: choose one of {", ".join(DATASETS)}')
    return DATASETS[name]


def image_root(data_root, dataset, split, first_image):
    """The first candidate root that contains the split's first image; MissingFile if there is none."""
    candidates = [os.path.join(data_root, root) for root in dataset_info(dataset).roots[split]]
    for root in candidates:
        if util.is_file(os.path.join(root, first_image)):
            return root
    raise MissingFile(
        f'no images of {dataset} {split}: {first_image} is not in {" or ".join(candidates)}; '
        'give the right --data_root, or prepare the data (docs/data.md)'
    )


def class_count(dataset, metadata_root):
    """The class count of a data set: from the table, else from the training labels.

    metadata_root: for a folder of photographs, the folder of its split.json.
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
    """The image ids of a split, in order; metadata_root as for `class_count`."""
    if dataset == folders.NAME:
        return folders.load(metadata_root, data_root, split).images[split]
    return _listed_ids(os.path.join(metadata_root, dataset, split), split)


def _listed_ids(folder, split, proxy=False):
    """The image ids in a split's metadata folder; UserError if there are none, or if one would be scored twice."""
    image_ids = read_image_ids(folder, proxy)
    if not image_ids:
        raise UserError(f'{folder}/image_ids.txt lists no image')
    if split != 'train' and len(set(image_ids)) < len(image_ids):
        twice = next(image_id for image_id, count in Counter(image_ids).items() if count > 1)
        raise UserError(f'{folder}/image_ids.txt lists {twice} twice: scores would count it twice; list it once')
    return image_ids


def load_split(dataset, split, data_root, metadata_root, proxy=False):
    """The `Split`, after checking that labels are in range, all images exist, and the first ones can be read.

    metadata_root as for `class_count`.
    """
    dataset_info(dataset)
    if dataset == folders.NAME:
        if proxy:
            raise UserError(f'--proxy_training_set needs image_ids_proxy.txt, which --dataset={dataset} does not have')
        saved = folders.load(metadata_root, data_root, split)
        images, labels = saved.images[split], saved.labels(split)
        found = Split(split, data_root, metadata_root, images, labels, len(saved.classes), photographs=True)
    else:
        found = _listed_split(dataset, split, data_root, metadata_root, proxy)
    image_ids = found.image_ids
    missing = missing_files(found.root, image_ids)
    if missing:
        what = (
            f'restore the file, which the split in {found.folder} lists'
            if found.photographs
            else f'scripts/check_data.py --dataset={dataset} lists all of them'
        )
        raise MissingFile(f'missing image {os.path.join(found.root, listed(missing, 1))}: {what}')
    for image_id in image_ids[:4]:
        read_image(os.path.join(found.root, image_id), found.photographs)
    return found


def missing_files(root, names):
    """The paths below `root` that do not exist or are links to nothing. Each folder is listed once, so a million paths
    take seconds."""
    listed = {}
    missing = []
    for name in names:
        folder, base = os.path.split(name)
        if folder not in listed:
            path = os.path.join(root, folder)
            entries = os.scandir(path) if os.path.isdir(path) else ()
            listed[folder] = {one.name for one in entries if not one.is_symlink() or os.path.exists(one.path)}
        if base not in listed[folder]:
            missing.append(name)
    return missing


def with_sizes(split):
    """The split with the sizes of image_sizes.txt, if it lists any, which `check_size` then enforces.

    A folder of photographs has no split files: its split stays as it is.
    """
    if split.photographs:
        return split
    sizes = read_sizes(split.folder)
    return split._replace(sizes={image_id: sizes.get(image_id) for image_id in split.image_ids} if sizes else None)


def check_size(split, image_id, size):
    """UserError if an image does not have the size that the split requires."""
    wanted = split.sizes and split.sizes[image_id]
    if wanted and wanted != size:
        raise UserError(
            f'image {os.path.join(split.root, image_id)} is {size[0]} x {size[1]} pixels, {split.folder}/'
            f'image_sizes.txt says {wanted[0]} x {wanted[1]}: boxes and parts would be in the wrong place; restore the '
            'original image, or recreate the split files (scripts/make_metadata.py)'
        )


def _listed_split(dataset, split, data_root, metadata_root, proxy):
    """The `Split` of metadata files."""
    folder = os.path.join(metadata_root, dataset, split)
    image_ids = _listed_ids(folder, split, proxy)
    labels = read_labels(folder)
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
    """A Pillow image in RGB; UserError if it cannot be read.

    photograph: apply EXIF rotation and the colour profile; otherwise, as in the protocol, use the stored pixels.
    """
    if photograph:
        return read_photograph(path)
    with opened(path) as image:
        image.load()
        return image if image.mode == 'RGB' else image.convert('RGB')  # convert() would copy an RGB image


class ImageLabelDataset(Dataset):
    """Items (transform(image, generator), label, image id) of a split, by the key epoch * len + index.

    The augmentation depends on (seed, epoch, index) only, not on the worker, the rank or a restart.
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
    """Batches of keys for one epoch: a permutation drawn from (seed, epoch), cut into batches of batch_size.

    Process `rank` of `world` takes every world-th key of each batch, so each image is used once; its share of the last
    batch may be empty. Set `epoch` and `start`, the number of batches to skip, before iterating.
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
    """An `ImageLoader` of (images [B, 3, crop, crop] on `device`, labels [B], image ids); training: with augmentation.

    batches: the keys of each batch; None: `EpochBatches` in training, else all images in order.
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
        generator=torch.Generator(),  # its own, to leave the run's random numbers alone
    )
    return ImageLoader(loader, preprocessing, device, channels_last)


def collate(crop_size, items):
    """torch's default_collate, and an empty batch for no items."""
    if items:
        return default_collate(items)
    return torch.empty(0, crop_size, crop_size, 3, dtype=torch.uint8), torch.empty(0, dtype=torch.long), []
