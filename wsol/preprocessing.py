"""What is done to an image before a network sees it: size, crop, mean and deviation, and back again for pictures.

The paper's protocol (PAPER) brings every image to a square, whatever its shape, and takes ImageNet's mean and
deviation. A network trained elsewhere comes with a `Preprocessing` of its own.
"""

import math
from typing import NamedTuple

import torch
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from .errors import UserError


class Preprocessing(NamedTuple):
    """How a network wants its images."""

    mean: tuple  # of each channel, for inputs in [0, 1]
    std: tuple
    interpolation: str  # Pillow's filter: 'bilinear', 'bicubic' …
    crop_share: float | None  # side of the crop over the shorter side of the resized image; None: a square, no crop


PAPER = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 'bilinear', None)  # ImageNet's mean and deviation


def from_record(record):
    """The `Preprocessing` of a dict, as checkpoints keep it; of None the paper's."""
    if record is None:
        return PAPER
    return Preprocessing(**{**record, 'mean': tuple(record['mean']), 'std': tuple(record['std'])})


def of_timm(config):
    """The `Preprocessing` of a timm network's pretrained configuration, a dict."""
    return Preprocessing(
        tuple(config['mean']), tuple(config['std']), config['interpolation'], float(config['crop_pct'])
    )


def of_torchvision(preset):
    """(Preprocessing, side of the crop) of a torchvision weights' transforms()."""
    share = preset.crop_size[0] / preset.resize_size[0]
    own = Preprocessing(tuple(preset.mean), tuple(preset.std), preset.interpolation.value, share)
    return own, preset.crop_size[0]


def _tensor_of(preprocessing):
    return [transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)]


def make_transform(training, resize_size=256, crop_size=224, preprocessing=PAPER):
    """Pillow image -> normalised float tensor [3, crop, crop] (released protocol: square resize, then crop and flip).

    Of `preprocessing` the filter, the mean and the deviation are taken: data sets with boxes, masks and parts are
    scored on the whole image, so nothing is cropped away.
    """
    if crop_size > resize_size and training:
        raise UserError(f'--crop_size {crop_size} is larger than --resize_size {resize_size}')
    interpolation = InterpolationMode(preprocessing.interpolation)
    if training:
        resize = transforms.Resize((resize_size, resize_size), interpolation)
        first = [resize, transforms.RandomCrop(crop_size), transforms.RandomHorizontalFlip()]
    else:
        first = [transforms.Resize((crop_size, crop_size), interpolation)]
    return transforms.Compose(first + _tensor_of(preprocessing))


def photograph_transform(crop_size, preprocessing=PAPER):
    """Pillow image -> normalised float tensor [3, crop, crop] of a photograph, as the network was trained to see one.

    With a crop_share: the shorter side becomes crop_size / crop_share, then the centre is taken; else a square resize.
    """
    if preprocessing.crop_share is None:
        return make_transform(False, crop_size=crop_size, preprocessing=preprocessing)
    side = math.floor(crop_size / preprocessing.crop_share)
    first = [transforms.Resize(side, InterpolationMode(preprocessing.interpolation)), transforms.CenterCrop(crop_size)]
    return transforms.Compose(first + _tensor_of(preprocessing))


class Placement(NamedTuple):
    """Where the square that a network sees lies in a photograph."""

    width: int  # of the resized photograph
    height: int
    left: int  # of the square's corner in it; negative where black is added
    top: int


def placement(width, height, crop_size, preprocessing=PAPER):
    """The `Placement` of a photograph of width x height pixels in `photograph_transform`, as torchvision computes
    it."""
    if preprocessing.crop_share is None:
        return Placement(crop_size, crop_size, 0, 0)
    side = math.floor(crop_size / preprocessing.crop_share)
    short = min(width, height)
    resized = [side if value == short else int(side * value / short) for value in (width, height)]
    corner = [
        round((value - crop_size) / 2) if value >= crop_size else -((crop_size - value) // 2) for value in resized
    ]
    return Placement(*resized, *corner)


def seen_part(image, preprocessing=PAPER):
    """The part of a Pillow image that a network sees through `photograph_transform`, at the image's own resolution."""
    if preprocessing.crop_share is None:
        return image
    side = round(min(image.size) * min(preprocessing.crop_share, 1))
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def denormalize(images, preprocessing=PAPER):
    """Normalised images [B, 3, h, w] back to [0, 1]."""
    mean, std = (
        torch.tensor(values, device=images.device, dtype=images.dtype)[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    return (images * std + mean).clamp(0, 1)
