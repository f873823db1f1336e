"""What people have at hand, paths, pictures, arrays, tensors or lists of those, as a batch that a network takes."""

import os
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..errors import UserError
from ..preprocessing import Preprocessing, denormalize, photograph_transform, seen_crop
from .pictures import as_picture


class Batch(NamedTuple):
    """Images as a network takes them, and as a person sees them."""

    images: torch.Tensor  # [B, 3, h, w], normalised
    pictures: list[Image.Image | None]  # what the network sees of each, at its own resolution; None: made by `picture`


def as_batch(images: Any, preprocessing: Preprocessing, size: int) -> Batch:
    """The `Batch` of an image or a list of images.

    A tensor of floats [B, 3, h, w] or [3, h, w] is taken as it is: normalised already. All else is a photograph, as
    `pictures.as_picture` takes it (an array [B, h, w, 3] is several), which becomes a square of `size` pixels by
    `preprocessing`. What is no image, or has a single pixel, is a UserError.
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
        raise UserError(
            f'the images are tensors of shapes {sorted(shapes)}: give them one shape, or one after the other'
        )
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
        raise UserError(f'{name} is of 1 x 1 pixel: there are no places to tell apart')
    return photograph_transform(size, preprocessing)(photograph), seen_crop(photograph, preprocessing)


def picture(image: torch.Tensor, preprocessing: Preprocessing) -> Image.Image:
    """A normalised image [3, h, w] as a Pillow image."""
    pixels = denormalize(image.detach().float().cpu()[None], preprocessing)[0].permute(1, 2, 0)
    return Image.fromarray(np.round(pixels.numpy() * 255).astype(np.uint8))
