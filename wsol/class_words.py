"""A class as people name it: by its number, its name, or its rank among the predictions."""

import difflib
import re

from .errors import UserError
from .registry import question


def parse_class(word, num_classes, names):
    """One class of a word as in `parse_classes`: a number from 0, or -r for the r-th most probable."""
    if re.fullmatch(r'@?[0-9]+', word):
        return _parse_number(word, num_classes)
    if names is None:
        raise UserError(
            f'class {word!r}: nothing names the classes here (no classes.txt of the data set): give a number'
        )
    found = [number for number, name in enumerate(names) if name == word]
    if not found:
        found = [number for number, name in enumerate(names) if _plain(name) == _plain(word)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ', '.join(f'{number} ({names[number]})' for number in found)
        raise UserError(f'class {word!r} is several: {listed}: give the number')
    close = [names[number] for number in _closest(_plain(word), [_plain(name) for name in names])]
    hint = question(close) or f'the names are such as {", ".join(names[:3])}. '
    raise UserError(f'unknown class {word!r}: {hint}Or give a number from 0 to {num_classes - 1}')


def _parse_number(word, num_classes):
    """'7' -> 7, '@2' -> -2; both checked against the number of classes."""
    ranked = word.startswith('@')
    number = int(word.lstrip('@'))
    if ranked and not 1 <= number <= num_classes:
        raise UserError(
            f'class {word} is out of range: there are {num_classes} classes, from @1, the prediction, to @{num_classes}'
        )
    if not ranked and number >= num_classes:
        raise UserError(f'class {word} is out of range: there are {num_classes} classes, from 0, to {num_classes - 1}')
    return -number if ranked else number


def _plain(name):
    """A name as people type it: no number before it, lower case, spaces."""
    return re.sub(r'^\d+\.', '', name).replace('_', ' ').lower().strip()


def _closest(word, names):
    """Numbers of up to five names close to `word`: those that contain it, or else those spelt much like it."""
    containing = [number for number, name in enumerate(names) if word in name][:5]
    return containing or [names.index(name) for name in difflib.get_close_matches(word, names, n=5)]
