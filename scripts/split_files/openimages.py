"""OpenImages30k: train, val and test; one folder per class with images, masks <id>_m*.png and <id>_ignore.png."""

import os

from wsol.errors import UserError

from .reading import check_classes, folders, split_files


def mask_rows(image_id, names, masks):
    """Localization lines of an image: one per mask, the ignore mask in the first. names: all files in its folder."""
    folder, stem = os.path.split(image_id[: -len('.jpg')])
    ignore = f'{folder}/{stem}_ignore.png' if f'{stem}_ignore.png' in names else ''
    if not masks:
        raise UserError(
            f'{image_id} has no mask {stem}_m*.png: unpack OpenImages_annotations.zip (scripts/prepare_openimages.sh)'
        )
    return [f'{image_id},{folder}/{mask},{"" if row else ignore}' for row, mask in enumerate(masks)]


def build_split(root, split, classes):
    """{file: lines} of a split."""
    labels = {}
    rows = []
    for name in folders(os.path.join(root, split)):
        if name not in classes:
            raise UserError(f'{root}/{split}/{name} is a class that train lacks: complete {root}/train')
        found = set(os.listdir(os.path.join(root, split, name)))
        masks = {}
        for mask in sorted(file for file in found if '_m' in file and file.endswith('.png')):
            masks.setdefault(mask.split('_m', 1)[0], []).append(mask)
        for stem in sorted(file[: -len('.jpg')] for file in found if file.endswith('.jpg')):
            image_id = f'{split}/{name}/{stem}.jpg'
            labels[image_id] = classes.index(name)
            if split != 'train':
                rows += mask_rows(image_id, found, masks.get(stem, []))
    return split_files(labels, labels, None, rows)


def build(root, options):
    """{split: {file: lines}} of `root`; the protocol's image sizes and train localization are empty."""
    classes = folders(os.path.join(root, 'train'))
    check_classes(classes, options.num_classes, f'{root}/train')
    return {split: build_split(root, split, classes) for split in ('train', 'val', 'test')}
