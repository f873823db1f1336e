"""Parsing of classes given by number, name or rank among the predictions."""

import difflib
import re

from .errors import UserError
from .registry import question

KINDS = ('name:', 'number:', 'rank:')  # prefixes that resolve an ambiguous word


def parse_class(word, num_classes, names):
    """Parse one class: returns its number from 0, or -r for the r-th most probable ('@r').

    A matching name wins, unless the word is also the number of another class or a rank: then UserError lists the
    meanings. name:1, number:1 and rank:1 are unambiguous.
    """
    exact = [number for number, name in enumerate(names or ()) if name == word]
    kind = next((one for one in KINDS if word.startswith(one) and not exact), None)
    if kind:
        word = word.removeprefix(kind)
        if kind == 'name:':
            return _parse_name(word, num_classes, names)
        if not re.fullmatch(r'[0-9]+', word):
            raise UserError(f'class {kind}{word}: give a whole number, as in {kind}1')
        return _parse_number(word if kind == 'number:' else f'@{word}', num_classes)
    if not re.fullmatch(r'@?[0-9]+', word):
        return _parse_name(word, num_classes, names)
    named = exact or _same_number(word, names or ())
    if not named:
        return _parse_number(word, num_classes)
    meanings = [f'the name of class number {number} ({names[number]})' for number in named]
    if word.startswith('@'):
        meanings.append(f'the prediction of rank {word[1:]}')
        advice = f'name:{word} or rank:{word[1:]}'
    else:
        meanings += [f'class number {int(word)} ({names[int(word)]})'] if int(word) < num_classes else []
        advice = f'name:{names[named[0]]} or number:{int(word)}'
    if meanings[1:] and not (word.isdecimal() and named == [int(word)]):
        raise UserError(f'class {word!r} is {" and ".join(meanings)}: give {advice}')
    return named[0]


def _same_number(word, names):
    """Classes whose names are numerically equal to the word: 01 is 1."""
    if not word.isdecimal():
        return []
    return [number for number, name in enumerate(names) if re.fullmatch(r'[0-9]+', name) and int(name) == int(word)]


def _parse_name(word, num_classes, names):
    """Number of the class with this name, exactly or as normalised by `_plain`."""
    if names is None:
        known = 'no class names are known (classes.txt of the data set; in Python: class_names=)'
        raise UserError(f'class {word!r}: {known}: give a number')
    found = [number for number, name in enumerate(names) if name == word]
    if not found:
        found = [number for number, name in enumerate(names) if _plain(name) == _plain(word)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ', '.join(f'{number} ({names[number]})' for number in found)
        raise UserError(f'class {word!r} matches several classes: {listed}: give the number')
    close = [names[number] for number in _closest(_plain(word), [_plain(name) for name in names])]
    hint = question(close) or f'names look like {", ".join(names[:3])}. '
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
    """A name normalised: no leading number, lower case, spaces for underscores."""
    return re.sub(r'^\d+\.', '', name).replace('_', ' ').lower().strip()


def _closest(word, names):
    """Indices of up to five names similar to `word`: those containing it, else close matches."""
    containing = [number for number, name in enumerate(names) if word in name][:5]
    return containing or [names.index(name) for name in difflib.get_close_matches(word, names, n=5)]
