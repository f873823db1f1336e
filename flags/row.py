"""A flag, as the tables of this package have it: what it affects, which commands use it, what it may be."""

import argparse
from collections.abc import Callable
from typing import NamedTuple

from torchvision import models

import wsol
from wsol.registry import did_you_mean

# What a flag affects. A result of the same other flags is the same result.
NOTHING = 'nothing'  # where files are, how much is shown, how work is shared out
PLACE = 'place'  # nothing, as long as the data there are the same: --resume points out that the place has changed
TRAINING = 'training'  # a training; not the scores of a checkpoint, which is known by its size and time
NETWORK = 'network'  # all that the network gives: its training, its maps, its scores
MAPS = 'maps'  # which maps are made, and how
SCORES = 'scores'  # how maps are scored

# The commands, and those that use a flag.
COMMANDS = ('main', 'eval_pixel_perturb', 'eval_cue_location', 'eval_wsol', 'eval_attribution', 'inference')
MAIN, ERASING, CUES, WSOL, TABLE, PICTURES = ((name,) for name in COMMANDS)
EXPLAINING = ERASING + CUES + WSOL + TABLE + PICTURES  # those that make maps
NAMED = ERASING + CUES + WSOL + PICTURES  # those that take their map from --score_map_process


class Flag(NamedTuple):
    """A flag of some commands. Two flags of one name belong to different commands."""

    name: str
    affects: str  # NOTHING, PLACE, TRAINING, NETWORK, MAPS or SCORES
    commands: tuple  # those that use it; the others take it and do nothing with it
    default: object
    help: str
    kind: Callable | tuple = str  # what its text is made into, or the values that it may be
    metavar: str | None = None
    many: bool = False  # does it take several words?
    grows: bool = False  # may --resume be given another value, to add to what is there?
    also: tuple = ()  # other names
    listed: str = ''  # what --help says below the title of its group: the names that it takes
    own: bool = False  # are its values in the arguments, logs and results of its commands alone?

    @property
    def names(self):
        """All its names."""
        return self.name, *self.also


# What a flag may be: functions of the text that is given.


def boolean(text):
    """'yes', 'true', 'on', 't', 'y', '1' and their opposites, in any case, to a bool."""
    if text.lower() in ('yes', 'true', 'on', 't', 'y', '1'):
        return True
    if text.lower() in ('no', 'false', 'off', 'f', 'n', '0'):
        return False
    raise argparse.ArgumentTypeError(f'{text!r} is not a boolean: give True or False')


def in_range(kind, low, high=None, open_low=False):
    """A number of `kind` with low <= value <= high (low < value with `open_low`)."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is not a number') from None
        if not (value > low if open_low else value >= low) or (high is not None and value > high):
            span = f'{"over" if open_low else "at least"} {low}' + (f' and at most {high}' if high is not None else '')
            raise argparse.ArgumentTypeError(f'{text} is out of range: it must be {span}')
        return value

    return parse


def architecture(text):
    """One of wsol.ARCHITECTURES, timm/<name>, which is checked where the network is built, or, for a --classifier that
    is a file, a name of torchvision."""
    names = wsol.ARCHITECTURES
    if text in names or text in models.list_models(module=models) or text.startswith('timm/') and text != 'timm/':
        return text
    raise argparse.ArgumentTypeError(
        f'unknown name {text!r}: {did_you_mean(text, names)}choose one of {", ".join(names)}, or timm/<name> of a timm '
        'model'
    )


def one_of(names):
    """One of `names`."""

    def parse(text):
        if text not in names:
            hint = did_you_mean(text, names)
            raise argparse.ArgumentTypeError(f'invalid choice: {text!r} ({hint}choose from {", ".join(names)})')
        return text

    return parse


def several(names):
    """A comma list of `names`, each once."""
    parse_one = one_of(names)

    def parse(text):
        return ','.join(dict.fromkeys(parse_one(name.strip()) for name in text.split(',')))

    return parse


def cell(text):
    """'row,column' as a pair of whole numbers from 0."""
    numbers = text.split(',')
    if len(numbers) != 2 or not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f'{text!r} is no location: give row,column in cells of the map, such as 3,5')
    return int(numbers[0]), int(numbers[1])


COUNT = in_range(int, 1)
FROM_0 = in_range(int, 0)
RATE = in_range(float, 0, open_low=True)
WEIGHT = in_range(float, 0)
SHARE = in_range(float, 0, 1)
PERCENT = in_range(int, 1, 100)
