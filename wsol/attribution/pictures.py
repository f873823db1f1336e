"""Overlays of maps on images. Needs no plotting library: the colours are OpenCV's."""

import os
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import UserError
from ..photographs import as_seen, read_photograph
from ..registry import lookup

COLORMAPS = ('inferno', 'viridis', 'magma', 'plasma', 'cividis', 'turbo', 'jet', 'hot')  # OpenCV's
POSITIVE, NEGATIVE = (178, 24, 43), (33, 102, 172)  # red and blue for signed maps


def as_picture(image: Any) -> Image.Image:
    """An RGB Pillow image from a path, a Pillow image, an array [h, w, 3] or [h, w], or a tensor [3, h, w].

    Arrays and tensors are bytes, or floats in [0, 1]. Raises UserError for anything else.
    """
    if isinstance(image, Image.Image):
        return as_seen(image)
    if isinstance(image, (str, os.PathLike)):
        return read_photograph(image)
    if torch.is_tensor(image) and image.ndim == 3:
        image = image.detach().cpu().permute(1, 2, 0).numpy()  # [h, w, 3]
    if not isinstance(image, np.ndarray):
        raise UserError(f'an image has type {type(image).__name__}: give a path, a PIL image, an array or a tensor')
    pixels = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if not (pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[2] == 3) or not pixels.size:
        raise UserError(f'an image is an array of shape {image.shape}: give [h, w, 3] or [h, w]')
    if pixels.dtype.kind == 'f':
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise UserError('an image is an array of floats outside [0, 1]: scale it, or give bytes')
        pixels = np.round(pixels * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise UserError(f'an image is an array of {pixels.dtype}: give uint8, or floats in [0, 1]')
    return Image.fromarray(pixels).convert('RGB')


def overlay(image: Any, map: Any, colormap: str = 'inferno', opacity: float = 0.7) -> Image.Image:
    """Overlay a map [h, w] on its image; returns a Pillow image of the image's size.

    image: as for `as_picture`. map: a tensor or array; it is resized. Opacity grows with |value|, from 0 to `opacity`
    at the largest |value|. Values above 0 use `colormap`, one of COLORMAPS; a map with negative values is drawn signed,
    positive in red and negative in blue.

    >>> overlay(np.zeros((40, 60, 3), np.uint8), torch.rand(7, 7)).size
    (60, 40)
    """
    import cv2  # imported here: nothing else on `import wsol` needs it

    lookup(dict.fromkeys(COLORMAPS), colormap, 'colormap')
    if not 0 <= opacity <= 1:
        raise UserError(f'opacity is {opacity}: give a number from 0 to 1')
    values = np.asarray(map.detach().float().cpu() if torch.is_tensor(map) else map, np.float32)  # [h, w]
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise UserError(f'a map of shape {list(values.shape)}: one map [h, w] of finite numbers is needed')
    picture = as_picture(image)
    low, top = values.min(), np.abs(values).max()
    smooth = cv2.resize(values / (top or 1), picture.size, interpolation=cv2.INTER_CUBIC)  # at image size
    if low < 0:
        colours = np.where(smooth[:, :, None] > 0, POSITIVE, NEGATIVE)
    else:
        shades = (smooth.clip(0, 1) * 255).astype(np.uint8)
        colours = cv2.applyColorMap(shades, getattr(cv2, f'COLORMAP_{colormap.upper()}'))[:, :, ::-1]  # RGB
    covered = opacity * np.abs(smooth.clip(min(low, 0), 1))[:, :, None].clip(0, 1) ** 0.5
    return Image.fromarray(np.round((1 - covered) * np.asarray(picture) + covered * colours).astype(np.uint8))
