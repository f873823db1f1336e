"""Reading a photograph as a person sees it: turned upright, in sRGB, on white, in 8 bits."""

import os
import warnings
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from .errors import MissingFile, UserError

FORMATS = ('JPEG', 'JPEG2000', 'PNG', 'WEBP', 'AVIF', 'BMP', 'GIF', 'TIFF', 'PPM')  # others may run a program


def read_photograph(source):
    """A Pillow image in RGB as a person sees it; source is a path or an open binary file.

    EXIF rotation is applied, a colour profile is followed, what is transparent is white, 16 bits become 8. A missing,
    damaged, foreign or animated file is a UserError of one line; camera files with a second picture give the first.
    """
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, 'name', 'file')
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
