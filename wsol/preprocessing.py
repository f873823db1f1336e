"""What is done to an image before a network sees it: size, crop, mean and deviation, and back again for pictures.

The paper's protocol (PAPER) brings every image to a square, whatever its shape, and takes ImageNet's mean and
deviation. A network trained elsewhere comes with a `Preprocessing` of its own.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from .errors import UserError


class Crop:
    """Which side of a photograph becomes crop_size / crop_share before the centre is taken; timm's names."""

    CENTER = 'center'  # the shorter one: its shape is kept, what lies outside the square is lost
    SQUASH = 'squash'  # both: its shape is not kept
    BORDER = 'border'  # the longer one: its shape is kept, and the mean's colour is laid beside it


class Preprocessing(NamedTuple):
    """How a network wants its images."""

    mean: tuple  # of each channel, for inputs in [0, 1]
    std: tuple
    interpolation: str  # Pillow's filter: 'bilinear', 'bicubic' …
    crop_share: float | None  # side of the crop over that of the resized image; None: a square, no crop
    crop_mode: str = Crop.CENTER  # how the image is resized before the crop


PAPER = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 'bilinear', None)  # ImageNet's mean and deviation


def from_record(record):
    """The `Preprocessing` of a dict, as checkpoints keep it; of None the paper's."""
    if record is None:
        return PAPER
    return Preprocessing(**{**record, 'mean': tuple(record['mean']), 'std': tuple(record['std'])})


def of_timm(config):
    """The `Preprocessing` of a timm network's pretrained configuration, a dict."""
    mode = config.get('crop_mode') or Crop.CENTER
    if mode not in (Crop.CENTER, Crop.SQUASH, Crop.BORDER):
        raise UserError(f'unknown crop_mode {mode!r} of a timm network: choose one of center, squash, border')
    share = float(config['crop_pct'])
    return Preprocessing(tuple(config['mean']), tuple(config['std']), config['interpolation'], share, mode)


def of_torchvision(preset):
    """(Preprocessing, side of the crop) of a torchvision weights' transforms()."""
    share = preset.crop_size[0] / preset.resize_size[0]
    own = Preprocessing(tuple(preset.mean), tuple(preset.std), preset.interpolation.value, share)
    return own, preset.crop_size[0]


def pillow_filter(preprocessing):
    """Pillow's filter of this name."""
    return Image.Resampling[preprocessing.interpolation.split('-')[0].upper()]  # nearest-exact is nearest


@functools.cache
def _constants(preprocessing, device):
    """(255, mean [3, 1, 1], deviation [3, 1, 1]) as tensors on the device."""
    with torch.inference_mode(False):
        values = torch.tensor([preprocessing.mean, preprocessing.std], device=device)[:, :, None, None]
        return torch.tensor(255.0, device=device), *values


def network_input(pixels, preprocessing=PAPER, device=None, channels_last=False):
    """Pixels uint8 [B, h, w, 3] -> normalised floats [B, 3, h, w] on `device` (None: where the pixels are).

    Divided by 255, minus the mean, over the deviation, each rounded once: bit for bit torchvision's ToTensor and
    Normalize on every device. (255 is a tensor, as an accelerator multiplies by the reciprocal of a plain number.)
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    pixels = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
    full, mean, std = _constants(preprocessing, pixels.device)
    return pixels.to(torch.float32, memory_format=layout).div_(full).sub_(mean).div_(std)


class SquareTransform:
    """Pillow image in RGB -> the square that a network sees (released protocol: square resize, then crop and flip)."""

    def __init__(self, training, resize_size, crop_size, preprocessing):
        """training: a random crop of crop_size out of the resized square, flipped half the time."""
        self.training = training
        self.crop_size = crop_size
        self.size = resize_size if training else crop_size
        self.preprocessing = preprocessing
        self.filter = pillow_filter(preprocessing)

    def _draw(self, generator):
        """(top, left, flipped?) of a crop: the numbers that torchvision's RandomCrop and RandomHorizontalFlip draw."""
        top = left = 0
        if self.size > self.crop_size:
            span = self.size - self.crop_size + 1
            top, left = (torch.randint(span, (1,), generator=generator).item() for _ in range(2))
        return top, left, torch.rand(1, generator=generator).item() < 0.5

    def pixels(self, image, generator=None):
        """The square as it travels, a tensor uint8 [crop, crop, 3]; generator: of the crop, None for torch's own."""
        image = image.resize((self.size, self.size), self.filter)
        if self.training:
            top, left, flipped = self._draw(generator)
            image = image.crop((left, top, left + self.crop_size, top + self.crop_size))
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else image
        return torch.from_numpy(np.array(image))

    def __call__(self, image, generator=None):
        """The square as the network takes it, normalised floats [3, crop, crop]."""
        return network_input(self.pixels(image, generator)[None], self.preprocessing)[0]


class ImageLoader:
    """The batches of a loader (pixels uint8 [B, h, w, 3], ...) with the pixels as images on a device, for the network.

    So bytes travel, and what the network sees is made in one place (`network_input`).
    """

    def __init__(self, loader, preprocessing, device, channels_last=False):
        self.loader = loader
        self.dataset = loader.dataset
        self.batch_sampler = loader.batch_sampler
        self.how = preprocessing, device, channels_last

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for pixels, *rest in self.loader:
            yield network_input(pixels, *self.how), *rest


def make_transform(training, resize_size=256, crop_size=224, preprocessing=PAPER):
    """The `SquareTransform` of these sizes: Pillow image -> normalised float tensor [3, crop, crop].

    Of `preprocessing` the filter, the mean and the deviation are taken: data sets with boxes, masks and parts are
    scored on the whole image, so nothing is cropped away.
    """
    if crop_size > resize_size and training:
        raise UserError(f'crop_size {crop_size} is larger than resize_size {resize_size}')
    return SquareTransform(training, resize_size, crop_size, preprocessing)


def photograph_transform(crop_size, preprocessing=PAPER):
    """Pillow image -> normalised float tensor [3, crop, crop] of a photograph, as the network was trained to see one.

    With a crop_share it is resized as `Crop` says, then the centre is taken; else a square resize.
    """
    if preprocessing.crop_share is None:
        return make_transform(False, crop_size=crop_size, preprocessing=preprocessing)
    return functools.partial(_seen_photograph, crop_size=crop_size, preprocessing=preprocessing)


def _seen_photograph(image, crop_size, preprocessing):
    """`photograph_transform` of an image, with a crop_share."""
    placed = placement(*image.size, crop_size, preprocessing)
    resized = image.resize((placed.width, placed.height), pillow_filter(preprocessing))
    square = _cut(resized, placed.left, placed.top, (crop_size, crop_size), preprocessing)
    return network_input(torch.from_numpy(np.array(square))[None], preprocessing)[0]


def _cut(image, left, top, size, preprocessing):
    """The part of an image from a corner on, and what lies beside the image: black, with `Crop.BORDER` the mean."""
    if preprocessing.crop_mode != Crop.BORDER:
        return image.crop((left, top, left + size[0], top + size[1]))  # Pillow has black beyond the image
    canvas = Image.new('RGB', size, tuple(round(255 * value) for value in preprocessing.mean))
    canvas.paste(image, (-left, -top))
    return canvas


class Placement(NamedTuple):
    """Where the square that a network sees lies in a photograph."""

    width: int  # of the resized photograph
    height: int
    left: int  # of the square's corner in it; negative where something is added
    top: int


def placement(width, height, crop_size, preprocessing=PAPER):
    """The `Placement` of a photograph of width x height pixels in `photograph_transform`, as torchvision and timm
    compute it."""
    if preprocessing.crop_share is None:
        return Placement(crop_size, crop_size, 0, 0)
    side = math.floor(crop_size / preprocessing.crop_share)
    resized = _resized(width, height, side, preprocessing.crop_mode)
    corner = [
        round((value - crop_size) / 2) if value >= crop_size else -((crop_size - value) // 2) for value in resized
    ]
    return Placement(*resized, *corner)


def _resized(width, height, side, crop_mode):
    """(width, height) of a photograph that is resized to `side` as the mode says."""
    if crop_mode == Crop.SQUASH:
        return [side, side]
    if crop_mode == Crop.BORDER:
        ratio = max(width / side, height / side)
        return [max(round(value / ratio), 1) for value in (width, height)]
    short = min(width, height)
    return [side if value == short else int(side * value / short) for value in (width, height)]


def seen_crop(image, preprocessing=PAPER):
    """The part of a Pillow image that a network sees through `photograph_transform`, at the image's own resolution."""
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
