"""Map readouts: what a network's own heads say of every class, without a backward pass.

Each function maps (f [B, C, H, W], h [B, 1, H, W]) to maps of every class [B, C, H, W] at native size, or to one map of
all classes [B, 1, H, W]. Source: the released code and the paper, section 3. Symbols as in wsol/calm.py.
"""

import torch

from .. import calm
from ..errors import UserError


def vanilla(f, h):
    """f_y: the class activation map, signed."""
    return f


def jointll(f, h):
    """p(y,z|x): the CALM attribution map, a probability."""
    return calm.p_yz_given_x(f, h)


def gtcond(f, h):
    """p(z|x,y): where the cue is, given the class; sums to 1 over z."""
    return calm.p_z_given_xy(f, h)


def saliency(f, h):
    """p(z|x): where the cue is; the same map for every class."""
    return calm.p_z_given_x(h)


def min_max(maps):
    """Each map [..., H, W] scaled to [0, 1]; a constant map gives zeros."""
    maps = maps - maps.amin(dim=(-2, -1), keepdim=True)
    top = maps.amax(dim=(-2, -1), keepdim=True)
    return maps / (top + (top == 0).to(maps.dtype))


def vanilla_saliency(f, h):
    """Sum over all classes of the min-max scaled f_y; the same map for every class."""
    return min_max(f).sum(dim=1, keepdim=True)


READOUTS = {
    'vanilla': vanilla,
    'vanilla-saliency': vanilla_saliency,
    'jointll': jointll,
    'gtcond': gtcond,
    'saliency': saliency,
}
SUPERCLASS_READOUTS = {  # name: (readout, scale each class map to [0, 1] first, divide by the size of the set)
    'vanilla-superclass': (vanilla, True, False),
    'jointll-superclass': (jointll, False, False),
    'jointll-superclass-mean': (jointll, False, True),
    'gtcond-superclass': (gtcond, False, False),
    'gtcond-superclass-mean': (gtcond, False, True),
}


def class_maps(process, f, h, classes, superclass=None):
    """Maps [B, K, H, W] of K classes per image from one forward pass.

    process: a name of READOUTS or SUPERCLASS_READOUTS; classes: LongTensor [B, K]; superclass: {class: [classes]}, needed
    by the superclass readouts (ValueError without it).
    """
    if process in READOUTS:
        maps = READOUTS[process](f, h)  # [B, C or 1, H, W]
        index = classes[:, :, None, None].expand(-1, -1, *f.shape[2:])  # [B, K, H, W]
        return maps.expand_as(f).gather(1, index)
    readout, scale, mean = SUPERCLASS_READOUTS[process]
    if superclass is None:
        raise UserError(f'{process} needs a superclass table')
    maps = min_max(readout(f, h)) if scale else readout(f, h)
    rows = [torch.stack([_set_map(maps[b], superclass[int(y)], mean) for y in row]) for b, row in enumerate(classes)]
    return torch.stack(rows)  # [B, K, H, W]


def _set_map(maps, members, mean):
    """[H, W] from [C, H, W]: the sum (or mean) over the classes of a set."""
    total = maps[list(members)].sum(dim=0)
    return total / len(members) if mean else total
