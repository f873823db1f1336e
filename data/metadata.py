"""Parsers of metadata files: metadata/<set>/<split>/{image_ids,class_labels,image_sizes,localization}.txt.

Errors in the files are a UserError that names file and line.
"""

import os

from wsol.errors import MissingFile, UserError

from .texts import read_object, read_text


def _lines(path):
    """[(line number, line)] of the lines of a metadata file that are not blank."""
    try:
        lines = enumerate(read_text(path).split('\n'), 1)
    except MissingFile:
        raise MissingFile(
            f'no metadata file {path}: make it with scripts/make_metadata.py or '
            'scripts/make_toybirds.py, or give another --metadata_root'
        ) from None
    return [(number, line.rstrip()) for number, line in lines if line.strip()]


def _rows(path, columns):
    """[(line number, cells)] of a comma-separated metadata file with so many columns."""
    rows = [(number, [cell.rstrip() for cell in line.split(',')]) for number, line in _lines(path)]
    for number, row in rows:
        if len(row) != columns:
            raise UserError(f'{path}, line {number}: {len(row)} columns instead of {columns}: {",".join(row)[:80]!r}')
    return rows


def _integers(path, columns):
    """{image id: [the integers of each of its rows]} of a metadata file; columns: including the id."""
    table = {}
    for number, (image_id, *values) in _rows(path, columns):
        try:
            table.setdefault(image_id, []).append(tuple(int(value) for value in values))
        except ValueError:
            raise UserError(f'{path}, line {number}: not an integer in {",".join(values)!r}') from None
    return table


def _one_each(path, columns):
    """`_integers` of a file with one row per image: {image id: its integers}."""
    table = _integers(path, columns)
    for image_id, rows in table.items():
        if len(set(rows)) > 1:
            different = ', '.join(map(str, dict.fromkeys(rows)))
            raise UserError(f'{path} has several rows for {image_id} that differ ({different}): keep one')
    return {image_id: rows[0] for image_id, rows in table.items()}


def read_image_ids(folder, proxy=False):
    """The image ids of a split, in file order; proxy: from image_ids_proxy.txt."""
    path = os.path.join(folder, 'image_ids_proxy.txt' if proxy else 'image_ids.txt')
    return [line for _, line in _lines(path)]


def read_labels(folder):
    """{image id: class number from 0}."""
    return {key: row[0] for key, row in _one_each(os.path.join(folder, 'class_labels.txt'), 2).items()}


def read_sizes(folder):
    """{image id: (width, height)} in pixels."""
    return _one_each(os.path.join(folder, 'image_sizes.txt'), 3)


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
    for number, (image_id, mask, ignore) in _rows(path, 3):
        if image_id in table and ignore:
            raise UserError(f'{path}, line {number}: a second ignore mask for {image_id}')
        table.setdefault(image_id, ([], ignore))[0].append(mask)
    return table
