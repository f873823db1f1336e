"""Classes of ToyBirds: a class is a code of eight numbers, the look of each of eight parts.

In the design `combined` a class is a combination of eight looks, two per part. In the design `single` each class
differs from a common bird by the look of one part.
"""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

# part -> (CUB attribute, its two values: the two looks); in the order of the mask labels
PART_LOOKS = {
    'bill': ('has_bill_shape', ('cone', 'dagger')),
    'crown': ('has_crown_color', ('red', 'yellow')),
    'wing': ('has_wing_pattern', ('solid', 'striped')),
    'back': ('has_back_color', ('green', 'purple')),
    'breast': ('has_breast_pattern', ('solid', 'spotted')),
    'belly': ('has_belly_color', ('orange', 'white')),
    'tail': ('has_tail_shape', ('forked_tail', 'fan-shaped_tail')),
    'leg': ('has_leg_color', ('red', 'blue')),
}
# for the design `single`: the common bird's look, then the classes' three
SINGLE_LOOKS = {
    'bill': ('has_bill_color', ('orange', 'red', 'blue', 'black')),
    'crown': ('has_crown_color', ('black', 'red', 'yellow', 'blue')),
    'wing': ('has_wing_pattern', ('solid', 'striped', 'spotted', 'multi-colored')),
    'back': ('has_back_color', ('black', 'green', 'purple', 'yellow')),
    'breast': ('has_breast_pattern', ('solid', 'striped', 'spotted', 'multi-colored')),
    'belly': ('has_belly_color', ('white', 'orange', 'blue', 'green')),
    'tail': ('has_tail_pattern', ('solid', 'striped', 'spotted', 'multi-colored')),
    'leg': ('has_leg_color', ('black', 'red', 'blue', 'yellow')),
}
PARTS = tuple(PART_LOOKS)
LABELS = {part: label for label, part in enumerate(PARTS, start=1)}
# the two PARTS varied by each square of classes
SQUARES = ((3, 6), (0, 7), (1, 2), (4, 5), (1, 5), (2, 3), (0, 4), (6, 7))
GROUP_OF = (0, 0, 1, 2, 3, 4, 5, 6)  # bill and crown are both 'head' for cue localization: one difference


def count_differences(codes):
    """{number of differing part groups: number of pairs} for codes (tuples of eight numbers)."""
    found = {}
    for one, other in combinations(codes, 2):
        number = len({GROUP_OF[i] for i in range(len(PARTS)) if one[i] != other[i]})
        found[number] = found.get(number, 0) + 1
    return found


def square_of(base, first, second):
    """Four codes: `base` with all combinations of the looks of two parts, opposite corners adjacent."""
    codes = []
    for flip_first, flip_second in ((0, 0), (1, 1), (0, 1), (1, 0)):
        code = list(base)
        code[first] ^= flip_first
        code[second] ^= flip_second
        codes.append(tuple(code))
    return codes


def unevenness(codes):
    """Sort key: small if the looks of all parts are balanced, then if pairs with 1, 2 and 3 differences are many."""
    pairs = count_differences(codes)
    imbalance = ((np.sum(codes, axis=0) * 2 - len(codes)) ** 2).sum()
    return imbalance, -min(pairs.get(number, 0) for number in (1, 2, 3)), -pairs.get(1, 0)


@cache
def design_classes(count):
    """Codes of `count` classes: a tuple of tuples of eight bits (0 the first look of a part, 1 the second).

    Built from squares of four classes that share six looks and have all combinations of the other two, so each square
    has four pairs that differ in one part. The shared looks of a square are chosen greedily: balanced looks first, then
    even numbers of pairs with 1, 2 and 3 differing part groups.
    """
    codes = []
    while len(codes) < count:
        first, second = SQUARES[len(codes) // 4 % len(SQUARES)]
        candidates = []
        for number in range(2 ** len(PARTS)):
            base = [number >> i & 1 for i in range(len(PARTS))]
            square = square_of(base, first, second)[: count - len(codes)]
            if not set(square) & set(codes):
                candidates.append((unevenness(codes + square), number, square))
        _, _, best = min(candidates)
        codes += best
    return tuple(codes)


def single_classes(count):
    """The 24 codes of the design `single`: zeros (the common bird) except for one part with look 1, 2 or 3."""
    codes = [tuple(look * (i == part) for i in range(len(PARTS))) for part in range(len(PARTS)) for look in (1, 2, 3)]
    assert len(codes) == count
    return tuple(codes)


class Design(NamedTuple):
    """A way to define classes by looks; each is a data set of its own."""

    name: str  # of the data set and its folders
    looks: dict  # part -> (CUB attribute, its values: the looks), in the order of PARTS
    classes: tuple  # allowed number of classes: (min, max)
    codes: Callable  # count -> tuple of codes


DESIGNS = {
    'combined': Design('ToyBirds', PART_LOOKS, (20, 64), design_classes),
    'single': Design('ToyBirdsSingle', SINGLE_LOOKS, (24, 24), single_classes),
}


def class_name(number, code):
    """Folder name of class `number` (from 1), as in CUB."""
    return f'{number:03d}.Toybird_' + ''.join(map(str, code))


def looks_of(code, table=PART_LOOKS):
    """{part: look} of a code; table: the design's looks."""
    return {part: table[part][1][number] for part, number in zip(PARTS, code)}
