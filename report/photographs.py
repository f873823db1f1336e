"""Photographs: found by patterns, read as a person sees them, loaded in batches by the loader's processes."""

import glob
import os
import warnings
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch.utils.data import DataLoader, Dataset

from data_folders import SUFFIXES
from wsol.errors import MissingFile, UserError
from wsol.preprocessing import PAPER, photograph_transform, seen_part

SIDE = 448  # longest side of a photograph in a panel, in pixels
FORMATS = ('JPEG', 'JPEG2000', 'PNG', 'WEBP', 'AVIF', 'BMP', 'GIF', 'TIFF', 'PPM')  # others may run a program


def read_photograph(source):
    """A Pillow image in RGB as a person sees it; source is a path or an open binary file.

    EXIF rotation is applied, a colour profile is followed, what is transparent is white, 16 bits become 8. A missing,
    damaged, foreign or animated file is a UserError of one line; camera files with a second picture give the first.
    """
    name = source if isinstance(source, str) else getattr(source, 'name', 'file')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of size and odd EXIF: the picture is the same
            with Image.open(source, formats=FORMATS) as image:
                frames = getattr(image, 'n_frames', 1) if image.format != 'MPO' else 1
                image.load()
                seen = _as_seen(_upright(image))
    except FileNotFoundError:
        raise MissingFile(f'image {name} is missing') from None
    except Exception as error:  # decoders raise nearly everything on a damaged file
        raise UserError(
            f'image {name} is unreadable ({" ".join(str(error).split()) or type(error).__name__})'
        ) from None
    if frames > 1:
        raise UserError(f'image {name} is animated or has pages ({frames} of them): save one as a file of its own')
    return seen


def _upright(image):
    """The image turned as its EXIF entry says; a damaged entry turns nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the entry is free-form bytes of a camera
        return image


def _as_seen(image):
    if image.mode.startswith('I') or image.mode == 'F':
        return _eight_bits(np.asarray(image)).convert('RGB')
    if image.mode in ('La', 'RGBa'):  # premultiplied: Pillow converts these to nothing else
        image = image.convert(image.mode.upper())
    alpha = image.convert('RGBA').getchannel('A') if image.has_transparency_data else None
    seen = _in_srgb(
        image if image.mode in ('L', 'CMYK', 'LAB') else image.convert('RGB'), image.info.get('icc_profile')
    )
    if alpha is None:
        return seen
    white = Image.new('RGB', image.size, 'white')
    white.paste(seen, mask=alpha)
    return white


def _in_srgb(image, profile):
    """RGB by the file's colour profile; without one, or with a damaged or unfitting one, by Pillow's own conversion."""
    if profile or image.mode == 'LAB':
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile) if profile else ImageCms.createProfile('LAB'))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile('sRGB'), outputMode='RGB')
        except (ImageCms.PyCMSError, OSError, TypeError):
            pass
    return image.convert('RGB')


def _eight_bits(values):
    """A grey image of 8 bits: 16-bit integers and floats in [0, 1] by their full scale, others by their own range."""
    full = 65535 if values.dtype.kind in 'iu' else 1
    values = np.nan_to_num(values.astype(np.float64))
    low = values.min()
    high = values.max()
    if low >= 0 and high <= full:
        low = 0
        high = full
    return Image.fromarray(np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8))


def _matching_files(pattern):
    """The files that a pattern finds, sorted."""
    return sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))


def find_photographs(patterns):
    """Absolute paths, each once, in order. A pattern is a file, a folder (its images), or such as 'photos/**/*.jpg'."""
    found = []
    for pattern in patterns:
        if os.path.isdir(pattern):
            paths = sorted(
                os.path.join(pattern, name) for name in os.listdir(pattern) if name.lower().endswith(SUFFIXES)
            )
        else:
            paths = [pattern] if os.path.isfile(pattern) else _matching_files(pattern)
        if not paths:
            raise UserError(f'no image matches --images {pattern}: give files, folders, or a pattern in quotes')
        found += paths
    return list(dict.fromkeys(map(os.path.abspath, found)))


def unique_names(files):
    """A name for each file: its path below the deepest folder that holds them all, extension included."""
    common = os.path.commonpath([os.path.dirname(path) for path in files])
    return [os.path.relpath(path, common) for path in files]


class Photograph(NamedTuple):
    """What is known of a file: its picture, or why there is none."""

    number: int  # among the files
    tensor: torch.Tensor | None  # as the network takes it, [3, S, S]
    picture: np.ndarray | None  # as a panel shows it, uint8 [y, x, 3]
    wrong: str | None  # what is wrong with the file


class Photographs(Dataset):
    """A `Photograph` of each image file; one that cannot be read is one too, so that the others go on."""

    def __init__(self, files, size, preprocessing=PAPER):
        self.files = files
        self.preprocessing = preprocessing
        self.transform = photograph_transform(size, preprocessing)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, number):
        try:
            image = read_photograph(self.files[number])
        except UserError as error:
            return Photograph(number, None, None, str(error))
        return Photograph(number, self.transform(image), panel_picture(image, self.preprocessing), None)


def panel_picture(image, preprocessing=PAPER):
    """What a network sees of a Pillow image, as a panel shows it: uint8 [y, x, 3], no side over SIDE pixels."""
    image = seen_part(image, preprocessing)
    return np.asarray(ImageOps.contain(image, (SIDE, SIDE)) if max(image.size) > SIDE else image)


def photograph_loader(files, size, batch_size, workers, preprocessing=PAPER, batches=None):
    """A DataLoader of lists of `Photograph`; size and preprocessing: the network's.

    The files come in their order, batch_size at a time, or as the lists of their numbers in `batches` say.
    """
    dealt = {'batch_size': batch_size} if batches is None else {'batch_sampler': batches}
    return DataLoader(Photographs(files, size, preprocessing), num_workers=workers, collate_fn=list, **dealt)
