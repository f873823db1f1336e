"""Layout of a layer's output: maps [B, L, H, W], channels-last maps [B, H, W, L] or tokens [B, N, L].

They are distinguished by the image size: a map, like a grid of tokens, has the image's aspect ratio. The first tokens
(class and register tokens) have no location. h, w: image size; H, W: map size.
"""

import math
from typing import NamedTuple

import torch
from torch import nn

BORDER = 3  # cells that a map may lack because of convolutions without padding
MOST_FIRST = 16  # largest plausible number of class and register tokens


class Maps(nn.Identity):
    """Hands on maps [B, L, H, W], whatever their aspect ratio."""


CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, Maps)  # always output [B, L, H, W]


class Layout(NamedTuple):
    """Layout of a layer's output."""

    kind: str  # 'maps', 'rows' (channels last) or 'tokens'
    grid: tuple  # (H, W)
    first: int = 0  # number of leading tokens without location

    def to_map(self, output):
        """The output as maps [B, L, H, W]."""
        if self.kind == 'maps':
            return output
        if self.kind == 'rows':
            return output.permute(0, 3, 1, 2)  # [B, L, H, W]
        return output[:, self.first :].transpose(1, 2).unflatten(2, self.grid)  # [B, L, H, W]

    def back(self, A, output):
        """The output with the maps A [B, L, H, W] in place of its own, as a new tensor."""
        if self.kind == 'maps':
            return A.clone()
        if self.kind == 'rows':
            return A.permute(0, 2, 3, 1).contiguous()  # [B, H, W, L]
        return torch.cat([output[:, : self.first].to(A.dtype), A.flatten(2).transpose(1, 2)], dim=1)  # [B, N, L]


def first_tokens(model):
    """Number of class and register tokens as declared by the model (timm); None if undeclared."""
    counts = (getattr(module, 'num_prefix_tokens', None) for module in model.modules())
    return next((count for count in counts if isinstance(count, int)), None)


def token_grid(count, size, first=None):
    """(H, W) of `count` tokens for images of size (h, w): h / patch and w / patch; None if they form no such grid.

    The patch size follows from the count because the grid has the image's aspect ratio. first: number of leading
    tokens, if known (an early layer may not have them yet); else the largest grid that leaves at most MOST_FIRST
    tokens.
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


def layout_of(module, output, size, first=None):
    """The `Layout` of a module's output for images of size (h, w); None if it does not have several locations."""
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
    for one in (maps, rows):
        if one and one.grid[1] * size[0] == one.grid[0] * size[1]:
            return one
    return maps if maps and (shape[2] == shape[3] or _near(maps.grid, size)) else None  # square: adaptive pooling


def _near(grid, size):
    """Does the grid have the aspect ratio of images of size (h, w), which is no square, up to rounding and borders?"""
    across = abs(grid[1] - size[1] * grid[0] / size[0])  # cells off along the width
    down = abs(grid[0] - size[0] * grid[1] / size[1])
    return size[0] != size[1] and (across <= BORDER or down < 1)  # down: a rounded height, in a wide image
