"""Parsers of metadata files: metadata/<set>/<split>/{image_ids,class_labels,image_sizes,localization}.txt.

Errors in the files are a UserError that names file and line.
"""

import os

from wsol.errors import MissingFile, UserError

from .texts import read_object, read_text


def _lines(path):
    """The lines of a metadata file."""
    if not os.path.isfile(path):
        raise MissingFile(
            f'no metadata file {path}: make it with scripts/make_metadata.py or '
            'scripts/make_toybirds.py, or give another --metadata_root'
        )
    return read_text(path).splitlines()


def _rows(path, columns):
    """The comma-separated rows of a metadata file with so many columns."""
    rows = [line.split(',') for line in _lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) != columns:
            raise UserError(f'{path}, line {number}: {len(row)} columns instead of {columns}: {",".join(row)[:80]!r}')
    return rows


def _integers(path, columns):
    """{image id: [the integers of each of its rows]} of a metadata file; columns: including the id."""
    table = {}
    for number, (image_id, *values) in enumerate(_rows(path, columns), 1):
        try:
            table.setdefault(image_id, []).append(tuple(int(value) for value in values))
        except ValueError:
            raise UserError(f'{path}, line {number}: not an integer in {",".join(values)!r}') from None
    return table


def read_image_ids(folder, proxy=False):
    """The image ids of a split, in file order; proxy: from image_ids_proxy.txt."""
    return _lines(os.path.join(folder, 'image_ids_proxy.txt' if proxy else 'image_ids.txt'))


def read_labels(folder):
    """{image id: class number from 0}."""
    return {key: rows[0][0] for key, rows in _integers(os.path.join(folder, 'class_labels.txt'), 2).items()}


def read_sizes(folder):
    """{image id: (width, height)} in pixels."""
    return {key: rows[0] for key, rows in _integers(os.path.join(folder, 'image_sizes.txt'), 3).items()}


def read_superclasses(path):
    """{class: [classes]} of a --superclass file, a JSON object of class numbers."""
    if not os.path.isfile(path):
        raise MissingFile(f'no --superclass file {path}: scripts/make_superclasses.py makes one')
    advice = 'it must be {"class": [classes]}, as scripts/make_superclasses.py writes it'
    try:
        sets = {int(key): [int(member) for member in members] for key, members in read_object(path, advice).items()}
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'--superclass={path} does not contain class numbers ({error}): {advice}') from None
    for key, members in sets.items():
        if key < 0 or not members or min(members) < 0:
            raise UserError(f'--superclass={path}: class {key} has the set {members}: give class numbers from 0')
    return sets


def read_boxes(folder):
    """{image id: [(x0, y0, x1, y1), ...]} in pixels of the original image."""
    return _integers(os.path.join(folder, 'localization.txt'), 5)


def read_masks(folder):
    """{image id: ([mask path, ...], ignore path)}, relative to the mask root; the first row has the ignore mask."""
    path = os.path.join(folder, 'localization.txt')
    table = {}
    for number, (image_id, mask, ignore) in enumerate(_rows(path, 3), 1):
        if image_id in table and ignore:
            raise UserError(f'{path}, line {number}: a second ignore mask for {image_id}')
        table.setdefault(image_id, ([], ignore))[0].append(mask)
    return table
