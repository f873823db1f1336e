"""Preparation of maps for scoring: resizing, smoothing, scaling to [0, 1]. N maps of h x w pixels, arrays."""

import math

import cv2
import numpy as np
import torch

from ..attribution import normalize
from ..errors import UserError


def resize(maps, size, interpolation=cv2.INTER_LINEAR):
    """Resize maps [N, h, w] (float32 array) to [N, size, size] with an OpenCV filter, bilinear by default."""
    if maps.shape[1:] == (size, size):
        return maps
    return np.stack([cv2.resize(one, (size, size), interpolation=interpolation) for one in maps])


def smooth(maps, ksize):
    """Blur maps [N, h, w] with the released Gaussian: ksize x ksize, deviation .3 ((ksize - 1) / 2 - 1) + .8, reflected
    edges.

    ksize 1: no blur. The deviation is passed explicitly because OpenCV's default uses fixed tables for small kernels.
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
    """Radius of `blur`'s Gaussian, three deviations, in px; raises UserError unless it is below the map's size."""
    reach = math.ceil(3 * deviation)
    if reach >= size:
        raise UserError(f'blur {deviation:g} is too large for maps of {size} pixels: give less than a third of that')
    return reach


def blur(maps, deviation):
    """Blur maps, a tensor [N, S, S], with a Gaussian of this deviation in pixels, reflected edges; 0: no blur.

    A matrix product along each axis, which takes as long for any deviation.
    """
    if not deviation:
        return maps
    size = maps.shape[-1]
    reach = blur_reach(deviation, size)
    places = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    source = (torch.arange(size)[:, None] + places.long()).abs()  # reflected at 0
    source = (size - 1) - (size - 1 - source).abs()  # and at the other edge
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, source, (kernel / kernel.sum()).expand(size, -1))
    matrix = matrix.to(maps)
    return matrix @ maps @ matrix.mT


def score_maps(maps, size):
    """Score maps [N, size, size] in [0, 1] from maps [N, h, w]: OpenCV's bicubic filter, then min-max.

    In float64, as in the protocol: later quantisation to 8 bits can depend on the last digit.
    """
    return normalize(resize(maps.astype(np.float64), size, cv2.INTER_CUBIC), 'minmax')
