"""Post-processing of maps [B, h, w]: scaling, resizing, fusing those of several layers."""

import numpy as np
import torch
from torch.nn import functional

from ..errors import UserError
from ..scaling import min_max


def _by_max(maps):
    top = maps.amax(dim=(-2, -1), keepdim=True)
    return maps / (top + (top == 0).to(maps.dtype))  # maximum 0: no positive value to scale


NORMALIZATIONS = {'max': _by_max, 'minmax': min_max, 'clipping': lambda maps: maps}


def normalize(maps, kind):
    """Maps [..., h, w], a tensor or an array, scaled to [0, 1] as in the released protocols.

    'max': divide by the maximum; 'minmax': subtract the minimum, then divide by the new maximum; 'clipping': unchanged;
    all are then clipped to [0, 1]. A map with NaN or with min = max becomes 0. Raises UserError for another kind.
    """
    if isinstance(maps, np.ndarray):
        return normalize(torch.from_numpy(maps), kind).numpy()
    if kind not in NORMALIZATIONS:
        raise UserError(f'unknown normalization {kind!r}: choose one of {", ".join(NORMALIZATIONS)}')
    low = maps.amin(dim=(-2, -1), keepdim=True)
    high = maps.amax(dim=(-2, -1), keepdim=True)
    usable = high > low  # also False for NaN, which amin and amax propagate
    return torch.where(usable, NORMALIZATIONS[kind](maps), torch.zeros_like(maps)).clamp(0, 1)


def upsample(maps, size):
    """Maps [B, h, w] resized bilinearly (pixel centres as in OpenCV) to `size`, an int or (height, width)."""
    size = (size, size) if isinstance(size, int) else tuple(size)
    return functional.interpolate(maps[:, None], size, mode='bilinear', align_corners=False).squeeze(1)  # [B, *size]


def aligned(maps):
    """Maps [N, B, H, W] of a list [B, h_i, w_i]: each scaled to [0, 1] and resized to the largest."""
    size = tuple(max(m.shape[d] for m in maps) for d in (1, 2))
    return torch.stack([upsample(min_max(m), size) for m in maps])  # [N, B, H, W]


def fuse(maps):
    """Fuse a list of maps [B, h_i, w_i] to [B, H, W]: the maximum of `aligned` maps; a single map stays unchanged.

    Source: LayerCAM (Jiang et al., TIP 2021), section III-C, with min-max instead of tanh.
    """
    return maps[0] if len(maps) == 1 else aligned(maps).amax(dim=0)  # [B, H, W]
