"""Classes as people name them: the names of a data set's classes, and classes given by number, name or rank."""

import difflib
import os
import re

from torchvision import models

import data_folders
from wsol.errors import UserError


def class_names(dataset, num_classes, roots):
    """The names of the classes, a list, from <root>/<dataset>/classes.txt ('1 001.Name' a line).

    The first root that has the file counts; torchvision knows those of ILSVRC, and split.json in one of the roots those
    of a folder of photographs. None where there is no such list of `num_classes` names.
    """
    if dataset == data_folders.NAME:
        split = data_folders.read(data_folders.place(*roots))
        return split.classes if split and len(split.classes) == num_classes else None
    names = list(models.ResNet50_Weights.IMAGENET1K_V1.meta['categories']) if dataset == 'ILSVRC' else []
    for path in (os.path.join(root, dataset, 'classes.txt') for root in roots):
        if os.path.isfile(path):
            with open(path) as file:
                names = [line.split(maxsplit=1)[-1].strip() for line in file if line.strip()]
            break
    return names if len(names) == num_classes else None


def parse_classes(text, num_classes, names=None):
    """One or two classes of a text 'A' or 'A,B': each a number from 0, a name, or @r, the r-th most probable class.

    @r becomes -r. Unknown, ambiguous or too many names are a UserError; for an unknown one it lists close ones.
    """
    words = [word.strip() for word in text.split(',')]
    if len(words) > 2 or not all(words):
        raise UserError(f'--classes {text!r}: give one class, or two as A,B')
    return [parse_class(word, num_classes, names) for word in words]


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
    hint = f'did you mean {" or ".join(close)}?' if close else f'the names are such as {", ".join(names[:3])}'
    raise UserError(f'unknown class {word!r}: {hint} Or give a number from 0 to {num_classes - 1}')


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
