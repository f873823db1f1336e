"""Maps before they are scored: resized, smoothed, brought to [0, 1]. N maps of h x w pixels, arrays."""

import math

import cv2
import numpy as np
import torch
from torch.nn import functional

from ..attribution import normalize
from ..errors import UserError


def resize(maps, size, interpolation=cv2.INTER_LINEAR):
    """Maps [N, h, w] (float32 array) to [N, size, size] with an OpenCV filter, bilinear unless told."""
    if maps.shape[1:] == (size, size):
        return maps
    return np.stack([cv2.resize(one, (size, size), interpolation=interpolation) for one in maps])


def smooth(maps, ksize):
    """Maps [N, h, w] under the released Gaussian: ksize x ksize, deviation .3 ((ksize - 1) / 2 - 1) + .8, mirrored
    edges.

    1 leaves them. The deviation is given because OpenCV takes fixed tables for small kernels where it is left open.
    """
    if ksize == 1:
        return maps
    if ksize % 2 == 0:
        raise UserError(f'smoothing_ksize {ksize} is even: give an odd number of pixels')
    deviation = 0.3 * ((ksize - 1) * 0.5 - 1) + 0.8
    return np.stack(
        [cv2.GaussianBlur(one, (ksize, ksize), deviation, borderType=cv2.BORDER_REFLECT_101) for one in maps]
    )


def blur_reach(deviation, size):
    """How many pixels the Gaussian of `blur` reaches: three deviations, which maps of `size` pixels must exceed."""
    reach = math.ceil(3 * deviation)
    if reach >= size:
        raise UserError(f'blur {deviation:g} is too much for maps of {size} pixels: three times it must fit')
    return reach


def blur(maps, deviation):
    """Maps, a tensor [N, S, S], under a Gaussian of this deviation in pixels, mirrored edges; 0 leaves them.

    It is applied along rows, then columns, where torchvision's takes all its pixels at once.
    """
    if not deviation:
        return maps
    reach = blur_reach(deviation, maps.shape[-1])
    places = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    row = (kernel / kernel.sum()).view(1, 1, 1, -1)
    wide = functional.pad(maps[:, None], [reach] * 4, mode='reflect')
    return functional.conv2d(functional.conv2d(wide, row), row.mT)[:, 0]


def score_maps(maps, size):
    """Maps [N, h, w] to score maps [N, size, size] in [0, 1]: OpenCV's bicubic filter, then min-max.

    In float64, as the protocol: what is cut to 8 bits afterwards may depend on the last digit.
    """
    return normalize(resize(maps.astype(np.float64), size, cv2.INTER_CUBIC), 'minmax')
