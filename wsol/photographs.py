"""Reading photographs as a viewer shows them: upright, in sRGB, on white, with 8 bits."""

import os
import warnings
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from .errors import MissingFile, UserError

FORMATS = ('JPEG', 'JPEG2000', 'PNG', 'WEBP', 'AVIF', 'BMP', 'GIF', 'TIFF', 'PPM')  # others may run programs
SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.mpo', '.jp2', '.j2k', '.jpc', '.jpf', '.jpx', '.j2c', '.png', '.apng'),
    *('.webp', '.avif', '.avifs', '.bmp', '.gif', '.tif', '.tiff', '.pbm', '.pgm', '.ppm', '.pnm', '.pfm'),
)  # Pillow's extensions for FORMATS
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> the transpose that turns the image upright


def other_endings(folder, files):
    """A log line on files of a folder without a photograph's extension; None if there are none."""
    others = [name for name in files if not name.lower().endswith(SUFFIXES)]
    endings = ', '.join(sorted({os.path.splitext(name)[1].lower() or 'none' for name in others}))
    return f"{folder}: skipped {len(others)} without a photograph's extension ({endings})" if others else None


def _name(source):
    return source if isinstance(source, (str, os.PathLike)) else getattr(source, 'name', 'file')


@contextmanager
def opened(source, what='image', formats=None):
    """Open the Pillow image of a path or binary file; decode it inside this context.

    Exceptions there (missing, damaged or too large file) become a one-line UserError naming the file.
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
    except Exception as error:  # decoders raise nearly any exception for a damaged file
        if isinstance(error, OSError) and error.errno:  # of the system: no permission, too many open files
            raise UserError(f'{what} {name} cannot be read ({error.strerror})') from None
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(f'{what} {name} is unreadable ({reason}): restore the file') from None


@contextmanager
def _photograph(source, what='image'):
    """`opened` for photographs, without Pillow's harmless warnings about large sizes and odd EXIF."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with opened(source, what, FORMATS) as image:
            yield image


def read_photograph(source: Any) -> Image.Image:
    """Read a path or open binary file as an RGB Pillow image, as a viewer shows it.

    Applies EXIF rotation and the colour profile, puts transparency on white, reduces 16 bits to 8. Raises UserError for
    a missing, damaged, unsupported or animated file; from MPO camera files it takes the first image.
    """
    with _photograph(source) as image:
        frames = getattr(image, 'n_frames', 1) if image.format != 'MPO' else 1
        if frames > 1:
            raise UserError(
                f'image {_name(source)} is animated or has several pages ({frames}): save one as a separate file'
            )
        image.load()
        return as_seen(image)


def photograph_size(path, what='image'):
    """(width, height) of the image that `read_photograph` returns, from the file's header."""
    with _photograph(path, what) as image:
        width, height = image.size
        sideways = image.format != 'TIFF' and _turn(image) in [TURNS[orientation] for orientation in (5, 6, 7, 8)]
        return (height, width) if sideways else (width, height)


def _turn(image):
    """The transpose that turns an image upright according to EXIF; None for none. Pillow turns TIFF files itself."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # ignore damaged EXIF data
        return None


def as_seen(image: Image.Image) -> Image.Image:
    """Convert a Pillow image to RGB as `read_photograph` does."""
    image.load()  # Pillow turns a TIFF file here, and clears its orientation
    turn = _turn(image)
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith('I') or image.mode == 'F':
        return _on_white(_eight_bits(np.asarray(image)).convert('RGB'), _opaque_values(image))
    if image.mode in ('La', 'RGBa'):  # premultiplied: Pillow converts these only to LA, RGBA
        image = image.convert(image.mode.upper())
    alpha = image.convert('RGBA').getchannel('A') if image.has_transparency_data else None
    plain = image if image.mode in ('RGB', 'L', 'CMYK', 'LAB') else image.convert('RGB')
    return _on_white(_in_srgb(plain, image.info.get('icc_profile')), alpha)


def _on_white(image, alpha):
    """An RGB image on white through alpha, an image of mode L; None: opaque."""
    if alpha is None:
        return image
    white = Image.new('RGB', image.size, 'white')
    white.paste(image, mask=alpha)
    return white


def _opaque_values(image):
    """Alpha of a grey image with more than 8 bits, whose file may declare one value transparent; None without it."""
    hidden = image.info.get('transparency')
    if not isinstance(hidden, int):
        return None
    return Image.fromarray(np.where(np.asarray(image) == hidden, 0, 255).astype(np.uint8))


def _in_srgb(image, profile):
    """Convert to sRGB by the colour profile, or by Pillow's conversion without a valid one."""
    if profile or image.mode == 'LAB':
        transform = _to_srgb(profile, image.mode)
        if transform is not None:
            return ImageCms.applyTransform(image, transform)
    return image if image.mode == 'RGB' else image.convert('RGB')  # convert() would copy an RGB image


@lru_cache(maxsize=16)
def _to_srgb(profile, mode):
    """Transform from a colour profile (bytes; none: Lab) to sRGB for images of a mode.

    None if the profile does not fit, or is sRGB itself: most files say so, and the transform takes ten times as long as
    decoding a JPEG. Cached because photographs of a camera share their profile.
    """
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile) if profile else ImageCms.createProfile('LAB'))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile('sRGB'), mode, 'RGB')
    except (ImageCms.PyCMSError, OSError, TypeError):
        return None
    return None if mode == 'RGB' and _changes_nothing(transform) else transform


def _changes_nothing(transform):
    """Does an RGB transform change 4096 colours spread over the cube by at most 1 of 255?"""
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(16, -1, 3)
    seen = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
    return np.abs(seen.astype(int) - colours).max() <= 1


def _eight_bits(values):
    """An 8-bit grey image: 16-bit integers and floats in [0, 1] scaled by their full range, others by their own."""
    full = 65535 if values.dtype.kind in 'iu' else 1
    values = np.nan_to_num(values.astype(np.float64))
    low = values.min()
    high = values.max()
    if low >= 0 and high <= full:
        low = 0
        high = full
    return Image.fromarray(np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8))
