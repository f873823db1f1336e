"""Class names of data sets, and parsing of classes given by number, name or rank."""

import os

from torchvision import models

from wsol.class_words import parse_class
from wsol.errors import UserError

from . import folders
from .texts import read_text


def class_names(dataset, num_classes, roots):
    """The list of class names, or None if there is none with `num_classes` names.

    Source: classes.txt (lines '1 001.Name') in <root>/<dataset>/ of the first root that has it; else torchvision for
    ILSVRC. For a folder of photographs: split.json in the first root that has it.
    """
    if dataset == folders.NAME:
        split = folders.read(folders.locate(*roots))
        return split.classes if split and len(split.classes) == num_classes else None
    names = list(models.ResNet50_Weights.IMAGENET1K_V1.meta['categories']) if dataset == 'ILSVRC' else []
    for path in (os.path.join(root, dataset, 'classes.txt') for root in roots):
        if os.path.isfile(path):
            names = [line.split(maxsplit=1)[-1].strip() for line in read_text(path).split('\n') if line.strip()]
            break
    return names if len(names) == num_classes else None


def parse_classes(text, num_classes, names=None):
    """Parse 'A' or 'A,B' into one or two class numbers; @r, the r-th most probable class, gives -r.

    A class is a number from 0, a name, which may contain commas, or @r. Unknown names (the message lists close ones),
    ambiguous names and more than two are a UserError.
    """
    text = text.strip()
    cuts = [(text[:i].strip(), text[i + 1 :].strip()) for i, letter in enumerate(text) if letter == ',']
    if not cuts or names and text in names:
        cuts = [(text,)]
    if len(cuts) > 1:
        cuts = [cut for cut in cuts if all(_is_class(word, num_classes, names) for word in cut)]
    if len(cuts) != 1 or not all(cuts[0]):
        raise UserError(f'--classes {text!r}: give one class, or two as A,B')
    return [parse_class(word, num_classes, names) for word in cuts[0]]


def _is_class(word, num_classes, names):
    try:
        parse_class(word, num_classes, names)
    except UserError:
        return False
    return bool(word)
