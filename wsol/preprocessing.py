"""Image preprocessing for networks: size, crop, mean and standard deviation; and back, for pictures.

The paper's protocol (PAPER) resizes every image to a square, whatever its aspect ratio, and uses ImageNet's mean and
deviation. Networks trained elsewhere have their own `Preprocessing`.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from .errors import UserError


class Crop:
    """Which side of a photograph becomes crop_size / crop_share before the centre crop (timm's names)."""

    CENTER = 'center'  # the shorter: keeps the aspect ratio, loses what is outside the square
    SQUASH = 'squash'  # both: changes the aspect ratio
    BORDER = 'border'  # the longer: keeps the aspect ratio, pads with the mean colour


class Preprocessing(NamedTuple):
    """Preprocessing that a network expects."""

    mean: tuple  # per channel, for inputs in [0, 1]
    std: tuple
    interpolation: str  # Pillow's filter: 'bilinear', 'bicubic' …
    crop_share: float | None  # crop side / resized side; None: resize to a square, no crop
    crop_mode: str = Crop.CENTER  # how to resize before the crop


PAPER = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 'bilinear', None)  # ImageNet's mean and deviation


def from_record(record):
    """The `Preprocessing` of a checkpoint's dict; PAPER for None."""
    if record is None:
        return PAPER
    return Preprocessing(**{**record, 'mean': tuple(record['mean']), 'std': tuple(record['std'])})


def of_timm(config):
    """The `Preprocessing` of a timm pretrained_cfg, a dict."""
    mode = config.get('crop_mode') or Crop.CENTER
    if mode not in (Crop.CENTER, Crop.SQUASH, Crop.BORDER):
        raise UserError(f'unknown crop_mode {mode!r} of a timm network: choose one of center, squash, border')
    share = float(config['crop_pct'])
    return Preprocessing(tuple(config['mean']), tuple(config['std']), config['interpolation'], share, mode)


def of_torchvision(preset):
    """(Preprocessing, crop side) of torchvision weights' transforms()."""
    share = preset.crop_size[0] / preset.resize_size[0]
    own = Preprocessing(tuple(preset.mean), tuple(preset.std), preset.interpolation.value, share)
    return own, preset.crop_size[0]


def pillow_filter(preprocessing):
    """Pillow's filter for this interpolation."""
    return Image.Resampling[preprocessing.interpolation.split('-')[0].upper()]  # nearest-exact is nearest


@functools.cache
def _constants(preprocessing, device):
    """(255, mean [3, 1, 1], deviation [3, 1, 1]) as tensors on the device."""
    with torch.inference_mode(False):
        values = torch.tensor([preprocessing.mean, preprocessing.std], device=device)[:, :, None, None]
        return torch.tensor(255.0, device=device), *values


def network_input(pixels, preprocessing=PAPER, device=None, channels_last=False):
    """Pixels uint8 [B, h, w, 3] -> normalised floats [B, 3, h, w] on `device` (None: the pixels' device).

    Divide by 255, subtract the mean, divide by the deviation, each rounded once: bit-identical to torchvision's
    ToTensor and Normalize on every device. (255 is a tensor because accelerators multiply by the reciprocal of a Python
    number.)
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pixels = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
    full, mean, std = _constants(preprocessing, pixels.device)
    return pixels.to(torch.float32, memory_format=layout).div_(full).sub_(mean).div_(std)


class SquareTransform:
    """RGB Pillow image -> the network's square input (released protocol: square resize, then crop and flip)."""

    def __init__(self, training, resize_size, crop_size, preprocessing):
        """training: take a random crop of crop_size from the resized square and flip it with probability 1/2."""
        self.training = training
        self.crop_size = crop_size
        self.size = resize_size if training else crop_size
        self.preprocessing = preprocessing
        self.filter = pillow_filter(preprocessing)

    def _draw(self, generator):
        """Draw (top, left, flipped?) with the random numbers of torchvision's RandomCrop and RandomHorizontalFlip."""
        top = left = 0
        if self.size > self.crop_size:
            span = self.size - self.crop_size + 1
            top, left = (torch.randint(span, (1,), generator=generator).item() for _ in range(2))
        return top, left, torch.rand(1, generator=generator).item() < 0.5

    def pixels(self, image, generator=None):
        """The square before normalisation, uint8 [crop, crop, 3]. generator: for the crop; None: torch's global one."""
        image = image.resize((self.size, self.size), self.filter)
        if self.training:
            top, left, flipped = self._draw(generator)
            image = image.crop((left, top, left + self.crop_size, top + self.crop_size))
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else image
        return torch.from_numpy(np.array(image))

    def __call__(self, image, generator=None):
        """The square as network input, normalised floats [3, crop, crop]."""
        return network_input(self.pixels(image, generator)[None], self.preprocessing)[0]


class ImageLoader:
    """A loader's batches (pixels uint8 [B, h, w, 3], ...) with the pixels converted to network input on a device.

    Loaders transfer bytes; only `network_input` converts them.
    """

    def __init__(self, loader, preprocessing, device, channels_last=False):
        self.loader = loader
        self.dataset = loader.dataset
        self.batch_sampler = loader.batch_sampler
        self.conversion = preprocessing, device, channels_last

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for pixels, *rest in self.loader:
            yield network_input(pixels, *self.conversion), *rest


def make_transform(training, resize_size=256, crop_size=224, preprocessing=PAPER):
    """The `SquareTransform` of these sizes: Pillow image -> normalised float tensor [3, crop, crop].

    Uses only filter, mean and deviation of `preprocessing`: data sets with boxes, masks and parts are scored on the
    whole image, so nothing is cropped.
    """
    if crop_size > resize_size and training:
        raise UserError(f'crop_size {crop_size} is larger than resize_size {resize_size}')
    return SquareTransform(training, resize_size, crop_size, preprocessing)


def photograph_transform(crop_size, preprocessing=PAPER):
    """Pillow image -> normalised float tensor [3, crop, crop], with the network's training-time geometry.

    With a crop_share: resize as in `Crop`, then centre crop; without: square resize.
    """
    if preprocessing.crop_share is None:
        return make_transform(False, crop_size=crop_size, preprocessing=preprocessing)
    return functools.partial(_seen_photograph, crop_size=crop_size, preprocessing=preprocessing)


def _seen_photograph(image, crop_size, preprocessing):
    """`photograph_transform` of one image, with a crop_share."""
    placed = placement(*image.size, crop_size, preprocessing)
    resized = image.resize((placed.width, placed.height), pillow_filter(preprocessing))
    square = _cut(resized, placed.left, placed.top, (crop_size, crop_size), preprocessing)
    return network_input(torch.from_numpy(np.array(square))[None], preprocessing)[0]


def _cut(image, left, top, size, preprocessing):
    """Crop `size` pixels from a corner on; outside the image it is black, or with `Crop.BORDER` the mean colour."""
    if preprocessing.crop_mode != Crop.BORDER:
        return image.crop((left, top, left + size[0], top + size[1]))  # Pillow fills with black outside the image
    canvas = Image.new('RGB', size, tuple(round(255 * value) for value in preprocessing.mean))
    canvas.paste(image, (-left, -top))
    return canvas


class Placement(NamedTuple):
    """Position of the network's square in a photograph."""

    width: int  # of the resized photograph
    height: int
    left: int  # of the square's corner in the resized photograph; negative with padding
    top: int


def placement(width, height, crop_size, preprocessing=PAPER):
    """The `Placement` of a photograph in `photograph_transform`, computed as in torchvision and timm."""
    if preprocessing.crop_share is None:
        return Placement(crop_size, crop_size, 0, 0)
    side = math.floor(crop_size / preprocessing.crop_share)
    resized = _resized(width, height, side, preprocessing.crop_mode)
    corner = [
        round((value - crop_size) / 2) if value >= crop_size else -((crop_size - value) // 2) for value in resized
    ]
    return Placement(*resized, *corner)


def _resized(width, height, side, crop_mode):
    """(width, height) of a photograph resized to `side` by crop mode."""
    if crop_mode == Crop.SQUASH:
        return [side, side]
    if crop_mode == Crop.BORDER:
        ratio = max(width / side, height / side)
        return [max(round(value / ratio), 1) for value in (width, height)]
    short = min(width, height)
    return [side if value == short else int(side * value / short) for value in (width, height)]


def seen_crop(image, preprocessing=PAPER):
    """The part of a Pillow image that a network sees through `photograph_transform`, at the image's resolution."""
    if preprocessing.crop_share is None:
        return image
    longest = {Crop.CENTER: (min(image.size),) * 2, Crop.SQUASH: image.size, Crop.BORDER: (max(image.size),) * 2}
    size = [max(round(value * preprocessing.crop_share), 1) for value in longest[preprocessing.crop_mode]]
    left, top = ((whole - inner) // 2 for whole, inner in zip(image.size, size))
    return _cut(image, left, top, size, preprocessing)


def denormalize(images, preprocessing=PAPER):
    """Normalised images [B, 3, h, w] back to [0, 1]."""
    mean, std = (
        torch.tensor(values, device=images.device, dtype=images.dtype)[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    return (images * std + mean).clamp(0, 1)
