"""Reading a photograph as a person sees it: turned upright, in sRGB, on white, in 8 bits."""

import os
import warnings
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from .errors import MissingFile, UserError

FORMATS = ('JPEG', 'JPEG2000', 'PNG', 'WEBP', 'AVIF', 'BMP', 'GIF', 'TIFF', 'PPM')  # others may run a program
SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.jp2', '.j2k', '.jpc', '.jpf', '.jpx', '.j2c', '.png', '.apng'),
    *('.webp', '.avif', '.avifs', '.bmp', '.gif', '.tif', '.tiff', '.pbm', '.pgm', '.ppm', '.pnm', '.pfm'),
)  # Pillow's, of these formats: how the names of photographs end
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what puts the image upright


def other_endings(folder, files):
    """A line on those files of a folder that do not end as photographs do; None where all do."""
    others = [name for name in files if not name.lower().endswith(SUFFIXES)]
    endings = ', '.join(sorted({os.path.splitext(name)[1].lower() or 'none' for name in others}))
    return f'{folder}: left out {len(others)} that do not end as photographs do ({endings})' if others else None


def _name(source):
    return source if isinstance(source, (str, os.PathLike)) else getattr(source, 'name', 'file')


@contextmanager
def opened(source, what='image', formats=None):
    """The Pillow image of a path or an open binary file, as a context in which it is decoded.

    What a decoder raises there, on a missing, damaged or too large file, is a UserError of one line that names it.
    """
    name = _name(source)
    try:
        with Image.open(source, formats=formats) as image:
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise MissingFile(f'{what} {name} is missing: restore the file') from None
    except Image.DecompressionBombError as error:
        raise UserError(f'{what} {name} is too large ({error}): make it smaller') from None
    except Exception as error:  # decoders raise nearly everything on a damaged file
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(f'{what} {name} is unreadable ({reason}): restore the file') from None


@contextmanager
def _photograph(source, what='image'):
    """`opened` for photographs, without the warnings of large size and odd EXIF: the picture is the same."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with opened(source, what, FORMATS) as image:
            yield image


def read_photograph(source: Any) -> Image.Image:
    """A Pillow image in RGB as a person sees it; source is a path or an open binary file.

    EXIF rotation is applied, a colour profile is followed, what is transparent is white, 16 bits become 8. A missing,
    damaged, foreign or animated file is a UserError of one line; camera files with a second picture give the first.
    """
    with _photograph(source) as image:
        frames = getattr(image, 'n_frames', 1) if image.format != 'MPO' else 1
        if frames > 1:
            raise UserError(
                f'image {_name(source)} is animated or has pages ({frames} of them): save one as a file of its own'
            )
        image.load()
        return as_seen(image)


def photograph_size(path, what='image'):
    """(width, height) of a photograph as `read_photograph` gives it, from the file's header."""
    with _photograph(path, what) as image:
        width, height = image.size
        sideways = image.format != 'TIFF' and _turn(image) in [TURNS[orientation] for orientation in (5, 6, 7, 8)]
        return (height, width) if sideways else (width, height)


def _turn(image):
    """What puts an image upright, by its EXIF entry, None for nothing; Pillow turns TIFF files itself."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # the entry is free-form bytes of a camera: a damaged one turns nothing
        return None


def as_seen(image: Image.Image) -> Image.Image:
    """A Pillow image in RGB as a person sees it, as `read_photograph` says."""
    turn = _turn(image)
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith('I') or image.mode == 'F':
        return _on_white(_eight_bits(np.asarray(image)).convert('RGB'), _opaque_values(image))
    if image.mode in ('La', 'RGBa'):  # premultiplied: Pillow converts these to nothing else
        image = image.convert(image.mode.upper())
    alpha = image.convert('RGBA').getchannel('A') if image.has_transparency_data else None
    plain = image if image.mode in ('RGB', 'L', 'CMYK', 'LAB') else image.convert('RGB')
    return _on_white(_in_srgb(plain, image.info.get('icc_profile')), alpha)


def _on_white(image, alpha):
    """An RGB image laid on white through alpha, an image of mode L; None: nothing is transparent."""
    if alpha is None:
        return image
    white = Image.new('RGB', image.size, 'white')
    white.paste(image, mask=alpha)
    return white


def _opaque_values(image):
    """The alpha of a grey image of many bits: its file may name one value that is transparent; None without."""
    hidden = image.info.get('transparency')
    if not isinstance(hidden, int):
        return None
    return Image.fromarray(np.where(np.asarray(image) == hidden, 0, 255).astype(np.uint8))


def _in_srgb(image, profile):
    """RGB by the file's colour profile; without one, or with a damaged or unfitting one, by Pillow's own conversion."""
    if profile or image.mode == 'LAB':
        transform = _to_srgb(profile, image.mode)
        if transform is not None:
            return ImageCms.applyTransform(image, transform)
    return image if image.mode == 'RGB' else image.convert('RGB')  # which copies an RGB image


@lru_cache(maxsize=16)
def _to_srgb(profile, mode):
    """The transform of images of a mode from a colour profile (bytes; none: Lab's) to sRGB.

    None where the profile does not fit, and where it is sRGB itself: most files say so, and the transform takes ten
    times as long as to decode a JPEG. The photographs of a camera share their profile, so the last ones are kept.
    """
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile) if profile else ImageCms.createProfile('LAB'))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile('sRGB'), mode, 'RGB')
    except (ImageCms.PyCMSError, OSError, TypeError):
        return None
    return None if mode == 'RGB' and _changes_nothing(transform) else transform


def _changes_nothing(transform):
    """Does an RGB transform leave 4,096 colours, all over the cube, as they are to one of 255 steps?"""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(16, -1, 3)
    seen = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
    return np.abs(seen.astype(int) - colours).max() <= 1


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
