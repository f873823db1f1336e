"""Map readouts: maps of every class read directly off a network's heads, without a backward pass.

Each function takes an `Output` (f [B, C, H, W], h [B, 1, H, W], probs [B, C]) and returns maps of every class
[B, C, H, W] at native size, or one map for all classes [B, 1, H, W]. Source: the released code and the paper, section
3. Symbols as in wsol/calm.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from .. import calm
from ..errors import UserError
from ..scaling import min_max


def vanilla(output):
    """f_y: the class activation map, signed."""
    return output.f


def jointll(output):
    """p(y,z|x): the CALM attribution map, a probability."""
    return calm.p_yz_given_x(output.f, output.h)


def gtcond(output):
    """p(z|x,y): where the cue is, given the class; for CALM it sums to 1 over z.

    Computed as released: p(y,z|x) over the head's own p(y|x), which for CAM is the softmax of mean scores instead of
    sum_z p(y,z|x).
    """
    return calm.p_z_given_xy(output.f, output.h, output.probs)


def saliency(output):
    """p(z|x): where the cue is; the same map for every class."""
    return calm.p_z_given_x(output.h)


def vanilla_saliency(output):
    """Sum over all classes of the min-max scaled f_y; the same map for every class."""
    return min_max(output.f).sum(dim=1, keepdim=True)


class Readout(NamedTuple):
    """How the map of one class, or of a set of classes, is computed from the maps of every class."""

    read: Callable  # output -> maps of every class [B, C, H, W], or one map of all classes [B, 1, H, W]
    sets: bool = False  # sum over the classes of a set
    scaled: bool = False  # scale each class map to [0, 1] first
    mean: bool = False  # divide by the size of the set


def class_maps(readout, output, classes, superclass=None):
    """Maps [B, K, H, W] of K classes per image from one forward pass.

    readout: a `Readout`; output: the network's `Output`; classes: LongTensor [B, K]; superclass: {class: [classes]},
    for readouts of sets. Raises UserError if it is needed and missing, or a class's set is missing, empty or out of
    range.
    """
    maps = readout.read(output)  # [B, C or 1, H, W]
    if not readout.sets:
        index = classes[:, :, None, None].expand(-1, -1, *output.f.shape[2:])  # [B, K, H, W]
        return maps.expand_as(output.f).gather(1, index)
    if superclass is None:
        raise UserError(f'a superclass map of {readout.read.__name__} needs superclass={{class: [classes]}}: give it')
    if readout.scaled:
        maps = min_max(maps)
    sets = {y: _members(superclass, y, output.f.shape[1]) for y in classes.unique().tolist()}
    rows = [torch.stack([_set_map(maps[b], sets[int(y)], readout.mean) for y in row]) for b, row in enumerate(classes)]
    return torch.stack(rows)  # [B, K, H, W]


def check_sets(superclass, num_classes):
    """Raise UserError if a set in {class: [classes]} contains a class that a network of num_classes does not have."""
    for y in superclass:
        _members(superclass, y, num_classes)


def _members(superclass, y, num_classes):
    """The checked set of class y."""
    members = list(superclass.get(y, ()))
    if not members:
        raise UserError(f'the superclass table has no set for class {y}: give one for every class that is explained')
    for member in members:
        if not 0 <= member < num_classes:
            raise UserError(
                f'the superclass table has class {member} in the set of class {y}: the network has classes 0 to '
                f'{num_classes - 1}'
            )
    return members


def _set_map(maps, members, mean):
    """[H, W] from [C, H, W]: sum (or mean) over a set of classes."""
    total = maps[members].sum(dim=0)
    return total / len(members) if mean else total
