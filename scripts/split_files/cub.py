"""CUB-200-2011: train and test, in the order of images.txt."""

import os

from wsol.errors import UserError

from .reading import box_row, check_classes, read_sizes, read_table, split_files


def build(root, options):
    """{split: {file: lines}} from the official tables in `root`."""
    names = read_table(os.path.join(root, 'images.txt'))
    labels = read_table(os.path.join(root, 'image_class_labels.txt'))
    training = read_table(os.path.join(root, 'train_test_split.txt'))
    boxes = read_table(os.path.join(root, 'bounding_boxes.txt'))
    check_classes(set(labels.values()), options.num_classes, f'{root}/image_class_labels.txt')
    splits = {}
    for split, flag in (('train', '1'), ('test', '0')):
        try:
            keys = [key for key in names if training[key] == flag]
            image_ids = [names[key] for key in keys]
            corners = [[int(float(value)) for value in boxes[key].split()] for key in keys]
            classes = {names[key]: int(labels[key]) - 1 for key in keys}
        except (KeyError, ValueError) as error:
            raise UserError(f'{root}: the tables do not match at {error}: restore the official files') from None
        sizes = read_sizes(os.path.join(root, 'images'), image_ids, split, options)
        rows = [
            box_row(image_id, (x, y, x + width, y + height), sizes[image_id])
            for image_id, (x, y, width, height) in zip(image_ids, corners)
        ]
        splits[split] = split_files(image_ids, classes, sizes, rows)
    return splits
