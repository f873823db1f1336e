"""Convert paths, pictures, arrays, tensors or lists of those to a batch for the network."""

import os
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..errors import UserError
from ..preprocessing import Preprocessing, denormalize, photograph_transform, seen_crop
from .pictures import as_picture


class Batch(NamedTuple):
    """Images as network input and for display."""

    images: torch.Tensor  # [B, 3, h, w], normalised
    pictures: list[Image.Image | None]  # crops seen by the network, at photograph resolution; None: use `picture`


def as_batch(images: Any, preprocessing: Preprocessing, size: int) -> Batch:
    """The `Batch` of an image or a list of images.

    Float tensors [B, 3, h, w] or [3, h, w] are used as they are (already normalised). Anything else is a photograph as
    in `pictures.as_picture` (an array [B, h, w, 3] is several), converted to a square of `size` px by `preprocessing`.
    Raises UserError for anything that is not an image or has a single pixel.
    """
    if torch.is_tensor(images) or isinstance(images, np.ndarray):
        several = images.ndim == 4
        if several and torch.is_tensor(images) and images.is_floating_point():
            return Batch(images, [None] * len(images))
    else:
        several = isinstance(images, (list, tuple))
    made = [_one(image, preprocessing, size) for image in (images if several else [images])]
    if not made:
        raise UserError('an empty list of images: give at least one')
    shapes = {tuple(tensor.shape) for tensor, _ in made}
    if len(shapes) > 1:
        raise UserError(f'the images are tensors of shapes {sorted(shapes)}: give one shape, or call once per image')
    return Batch(torch.stack([tensor for tensor, _ in made]), [picture for _, picture in made])


def _one(image: Any, preprocessing: Preprocessing, size: int) -> tuple[torch.Tensor, Image.Image | None]:
    """(tensor [3, h, w], picture or None) of one image."""
    if torch.is_tensor(image) and image.is_floating_point():
        if image.ndim != 3:
            raise UserError(f'an image is a tensor of shape {list(image.shape)}: give [3, h, w], or [B, 3, h, w]')
        return image, None
    photograph = as_picture(image)
    if photograph.size == (1, 1):
        name = image if isinstance(image, (str, os.PathLike)) else 'an image'
        raise UserError(f'{name} has 1 x 1 pixel: it has only one location')
    return photograph_transform(size, preprocessing)(photograph), seen_crop(photograph, preprocessing)


def picture(image: torch.Tensor, preprocessing: Preprocessing) -> Image.Image:
    """A normalised image [3, h, w] as a Pillow image."""
    pixels = denormalize(image.detach().float().cpu()[None], preprocessing)[0].permute(1, 2, 0)
    return Image.fromarray(np.round(pixels.numpy() * 255).astype(np.uint8))
