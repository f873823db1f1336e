"""Object masks of photographs, in any common encoding.

0/1, 0/255, class numbers, 1 bit, 16 bits, palettes, colours, transparency: the object is every pixel that is neither
zero, black nor transparent. Ambiguous files are rejected. OpenImages masks follow their own protocol
(wsol/scoring/pixels.py).
"""

import os

import cv2
import numpy as np
from PIL import Image, ImageOps

from .errors import UserError
from .photographs import FORMATS, opened, photograph_size

ADVICE = 'save it in grey, 0 and 255'


def read_region(path):
    """The object in a mask file, bool [height, width], with EXIF rotation applied. Raises UserError for a missing,
    damaged or ambiguous file."""
    with opened(path, 'mask', FORMATS) as image:
        deep = image.mode not in ('I', 'I;16', 'I;16B', 'F') and any(';16' in str(tile) for tile in image.tile)
        image.load()
        upright = ImageOps.exif_transpose(image)
        colour, visible = _deep_channels(path) if deep else _channels(upright)
        region = _object(colour, visible, path)
        if image.mode in ('P', 'PA') and not np.array_equal(region, _numbers(upright) > 0):
            raise UserError(f'mask {path} has a palette whose entry 0 is not the background: {ADVICE}')
        return region


def _numbers(image):
    """Palette indices of the pixels [h, w]."""
    return np.asarray(image if image.mode == 'P' else image.getchannel('P'))


def _channels(image):
    """(not black, not transparent), bool [h, w] each, of a Pillow image."""
    if image.mode.startswith('I') or image.mode == 'F':
        values = np.asarray(image)
        hidden = image.info.get('transparency')
        return values > 0, values != hidden if isinstance(hidden, int) else np.ones(values.shape, bool)
    if image.mode in ('La', 'RGBa'):  # premultiplied: Pillow converts these only to LA, RGBA
        image = image.convert(image.mode.upper())
    values = np.asarray(image.convert('RGBA'))
    return values[..., :3].any(axis=-1), values[..., 3] > 0


def _deep_channels(path):
    """`_channels` of a file with 16-bit colours, which Pillow cuts to 8 bits."""
    values = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype.itemsize != 2:
        raise UserError(f'mask {path} has colours of 16 bits that cannot be read: {ADVICE}')
    values = np.atleast_3d(values)
    visible = values[..., 3] > 0 if values.shape[-1] == 4 else np.ones(values.shape[:2], bool)
    return values[..., :3].any(axis=-1), visible


def _object(colour, visible, path):
    """The object by colour, by transparency, or by both if they agree on the visible pixels."""
    if visible.all():
        return colour
    if (visible & ~colour).any() or colour.any() and not visible.any():
        raise UserError(f'mask {path} is partly transparent, and its colours mark a different object: {ADVICE}')
    return visible


def check_mask_size(path, size):
    """Raise UserError unless a mask file has its photograph's size (width, height)."""
    own = photograph_size(path, 'mask')
    if own != size:
        raise UserError(f'mask {path} is {own}, its photograph {size} (width, height): give one of the same size')


def square(region, size):
    """A region [h, w] resized to a square image, bool [size, size], by nearest pixel."""
    return np.array(Image.fromarray(region).resize((size, size), Image.Resampling.NEAREST))
