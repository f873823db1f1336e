"""One flag of the tables of this package: what it affects, which commands use it, its allowed values."""

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

from torchvision import models

import wsol
from wsol.registry import did_you_mean

# What a flag affects. Flags that affect nothing may differ between two commands that make the same result.
NOTHING = 'nothing'  # no result: locations of files, output, division of work
PLACE = 'place'  # no result if the data are the same: --resume reports a change
TRAINING = 'training'  # training; not the scores of a checkpoint, which is identified by its size and time
NETWORK = 'network'  # everything computed with the network: its training, its maps, its scores
MAPS = 'maps'  # which maps are computed, and how
SCORES = 'scores'  # how maps are scored

# All commands, and groups of commands that use the same flags.
COMMANDS = ('main', 'eval_pixel_perturb', 'eval_cue_location', 'eval_wsol', 'eval_attribution', 'inference')
MAIN, ERASING, CUES, WSOL, TABLE, PICTURES = ((name,) for name in COMMANDS)
EXPLAINING = ERASING + CUES + WSOL + TABLE + PICTURES  # those that compute maps
NAMED = ERASING + CUES + WSOL + PICTURES  # those that read --score_map_process


class Flag(NamedTuple):
    """A flag of some commands. Flags with the same name belong to different commands."""

    name: str
    affects: str  # NOTHING, PLACE, TRAINING, NETWORK, MAPS or SCORES
    commands: tuple  # those that use it; the others accept and ignore it
    default: object
    help: str
    kind: Callable | tuple = str  # converter of the text, or the allowed values
    metavar: str | None = None
    many: bool = False  # takes several values
    grows: bool = False  # may change with --resume, to extend a result
    also: tuple = ()  # other names
    listed: str = ''  # text below the title of its group in --help: the allowed names
    own: bool = False  # only its commands have it in their arguments, logs and results

    @property
    def names(self):
        """All its names."""
        return self.name, *self.also


# Converters: functions of the text of a flag.


def boolean(text):
    """A bool from 'yes', 'true', 'on', 't', 'y', '1' or their opposites, in upper or lower case."""
    if text.lower() in ('yes', 'true', 'on', 't', 'y', '1'):
        return True
    if text.lower() in ('no', 'false', 'off', 'f', 'n', '0'):
        return False
    raise argparse.ArgumentTypeError(f'{text!r} is not a boolean: use True or False')


def in_range(kind, low, high=None, open_low=False):
    """A finite number of `kind` with low <= value <= high (low < value with `open_low`)."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'{text!r} is not a number') from None
        above = value > low if open_low else value >= low
        if not above or value == math.inf or (high is not None and value > high):
            span = f'{"over" if open_low else "at least"} {low}' + (f' and at most {high}' if high is not None else '')
            raise argparse.ArgumentTypeError(
                f'{text} is out of range: it must be {span}{", and finite" * (value == math.inf)}'
            )
        return value

    return parse


def architecture(text):
    """One of wsol.ARCHITECTURES, timm/<name> (checked when the network is built), or a torchvision name for a
    --classifier file."""
    names = wsol.ARCHITECTURES
    if text in names or text in models.list_models(module=models) or text.startswith('timm/') and text != 'timm/':
        return text
    raise argparse.ArgumentTypeError(
        f'unknown name {text!r}: {did_you_mean(text, names)}choose one of {", ".join(names)}, or timm/<name> for a '
        'timm model'
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
    """A comma-separated list of `names`, without repetitions."""
    parse_one = one_of(names)

    def parse(text):
        return ','.join(dict.fromkeys(parse_one(name.strip()) for name in text.split(',')))

    return parse


def cell(text):
    """'row,column' as a pair of whole numbers from 0."""
    numbers = text.split(',')
    if len(numbers) != 2 or not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a location: give row,column in cells of the map, such as 3,5'
        )
    return int(numbers[0]), int(numbers[1])


COUNT = in_range(int, 1)
FROM_0 = in_range(int, 0)
RATE = in_range(float, 0, open_low=True)
WEIGHT = in_range(float, 0)
SHARE = in_range(float, 0, 1)
PERCENT = in_range(int, 1, 100)
