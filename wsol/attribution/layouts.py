"""Where a layer's output has its locations: maps [B, L, H, W], channels-last maps [B, H, W, L] or tokens [B, N, L].

The images' size tells them apart: a map has the proportions of the image, and so has the grid of the tokens, the first
of which (class and register tokens) belong to no location. h, w: of the images; H, W: of the map.
"""

import math
from typing import NamedTuple

import torch
from torch import nn

BORDER = 3  # pixels of a map that convolutions without padding may have cost
MOST_FIRST = 16  # class and register tokens that a transformer may have
CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)  # what they give is [B, L, H, W], whatever its proportions


class Layout(NamedTuple):
    """How a layer's output is laid out."""

    kind: str  # 'maps', 'rows' (channels last) or 'tokens'
    grid: tuple  # (H, W)
    first: int = 0  # tokens that belong to no location

    def to_map(self, output):
        """The output as maps [B, L, H, W]."""
        if self.kind == 'maps':
            return output
        if self.kind == 'rows':
            return output.permute(0, 3, 1, 2)  # [B, L, H, W]
        return output[:, self.first :].transpose(1, 2).unflatten(2, self.grid)  # [B, L, H, W]

    def back(self, A, output):
        """The output with the maps A [B, L, H, W] in place of its own: a new tensor."""
        if self.kind == 'maps':
            return A.clone()
        if self.kind == 'rows':
            return A.permute(0, 2, 3, 1).contiguous()  # [B, H, W, L]
        return torch.cat([output[:, : self.first].to(A.dtype), A.flatten(2).transpose(1, 2)], dim=1)  # [B, N, L]


def first_tokens(model):
    """How many class and register tokens the model says it has (timm's do); None where it says nothing."""
    counts = (getattr(module, 'num_prefix_tokens', None) for module in model.modules())
    return next((count for count in counts if isinstance(count, int)), None)


def token_grid(count, size, first=None):
    """(H, W) of `count` tokens of images of size (h, w): h / patch and w / patch. None where they make no such grid.

    The count says which patch it is, as the grid has the image's proportions. first: tokens before those of the grid,
    where that is known (a layer may still lack them); else the largest grid is taken, if it leaves no more than
    MOST_FIRST over.
    """
    common = math.gcd(*size)
    unit = size[0] // common, size[1] // common
    area = unit[0] * unit[1]
    for known in (None,) if first is None else (first, 0):
        times = math.isqrt(max(0, count - (known or 0)) // area)
        left = count - area * times**2
        if times and (left <= MOST_FIRST if known is None else left == known):
            return unit[0] * times, unit[1] * times
    return None


def _strays(h, w, size):
    """By how many cells a map of h x w departs from the proportions of images of `size`."""
    return abs(w - size[1] * h / size[0])


def layout_of(module, output, size, first=None):
    """The `Layout` of what a module gives for images of size (h, w); None where it has no several locations."""
    shape = output.shape if torch.is_tensor(output) else ()
    if len(shape) == 3:
        grid = token_grid(shape[1], size, first)
        return Layout('tokens', grid, shape[1] - math.prod(grid)) if grid and math.prod(grid) > 1 else None
    if len(shape) != 4:
        return None
    maps = Layout('maps', tuple(shape[2:])) if shape[2] * shape[3] > 1 else None
    rows = Layout('rows', tuple(shape[1:3])) if shape[1] * shape[2] > 1 else None
    if isinstance(module, CHANNELS_FIRST):
        return maps
    border = 0 if size[0] == size[1] else BORDER
    for one, most in ((maps, 0), (rows, 0), (maps, border)):
        if one and _strays(*one.grid, size) <= most:
            return one
    return maps if maps and shape[2] == shape[3] else None  # a square, of an adaptive pooling
