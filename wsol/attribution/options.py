"""Options of all maps in one record. Each method reads the fields it needs."""

from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Any

import torch

from ..errors import UserError

SMOOTH_AVERAGES = ('derivatives', 'maps')
COUNTS = (  # options that are whole numbers of at least 1
    'batch_size',
    'smooth_grad_nr_iter',
    'integrated_grad_nr_iter',
    'rise_nr_masks',
    'occlusion_window',
    'num_samples',
)


def flag(default: Any, low: float, help: str) -> Any:
    """An option that is also a command-line flag (config.py): default, lowest value, help text."""
    return field(default=default, metadata={'low': low, 'help': help})


@dataclass(frozen=True)
class Options:
    """Options of a map. Each method reads the fields it needs.

    target_layer: module, dotted name or a list of those; None: the last feature layer (CAM family, perturbation).
    superclass: {class: [classes]} (superclass readouts). batch_size: images, noisy copies or masked copies per pass of
    the network; bounds the memory. noise_seeds: one integer per image that alone determines its noise (`noise_seed`);
    None: seeds are drawn from `generator`, a torch.Generator, or if that is None from torch's global one. progress:
    show a bar. of_image: one integer per row. Consecutive rows with the same number are the same image (with the same
    noise and baseline) for several classes, and share what does not depend on the class. None: every row is a different
    image. smooth_grad_nr_iter, smooth_grad_sigma: number of noisy copies; the noise has standard deviation (max - min
    of the image) / smooth_grad_sigma, none if that is 0. integrated_grad_nr_iter: points of the path. baseline: start
    of the path, a number or a tensor that broadcasts to the images; None: 0. num_samples, std: number of noisy copies
    and their standard deviation in smooth_grad_cam_pp (None: 4 and .3), ss_cam (None: 35 and 2) and gradient_shap
    (None: 50 and 0); steps of is_cam (None: 10). rise_nr_masks: random masks of rise. occlusion_window: side of
    occlusion's square in px, moved by half a side; None: an eighth of the image's shorter side. smooth_average: what
    smooth_grad_cam_pp averages over the noisy copies, one of SMOOTH_AVERAGES. at: (row, column) from 0, in cells of the
    map: the location whose interactions taylor_interaction shows; None: the location with the strongest interactions.
    shared: a dict for calls that differ in the method alone (same model, images, target and options): they leave there
    what the next one can use.
    """

    target_layer: object = None
    superclass: dict | None = None
    batch_size: int = 32
    noise_seeds: list | None = None
    of_image: list | None = None
    generator: torch.Generator | None = None
    progress: bool = False
    smooth_grad_nr_iter: int = flag(50, 1, 'noisy copies of SmoothGrad and VarGrad')
    smooth_grad_sigma: float = flag(4.0, 0, "their noise: the image's range divided by this")
    integrated_grad_nr_iter: int = flag(50, 1, 'steps of integrated gradients')
    baseline: object = None
    rise_nr_masks: int = flag(4000, 1, 'random masks of RISE')
    occlusion_window: int | None = flag(None, 1, 'occlusion: side of the square in pixels (default: an eighth)')
    num_samples: int | None = flag(
        None, 1, 'samples of smooth_grad_cam_pp (default: 4), ss_cam (35), gradient_shap (50), is_cam (10)'
    )
    std: float | None = None
    smooth_average: str = 'derivatives'
    at: tuple | None = None
    shared: dict | None = None

    def __post_init__(self):
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise UserError(f'{name} is {value}: give a whole number of at least 1')
        for name in ('smooth_grad_sigma', 'std'):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UserError(f'{name} is {value}: give a number of at least 0')
        if self.generator is not None and not isinstance(self.generator, torch.Generator):
            raise UserError(f'generator is {self.generator!r}: give a torch.Generator, or noise_seeds, one per image')
        if self.smooth_average not in SMOOTH_AVERAGES:
            raise UserError(f'smooth_average is {self.smooth_average!r}: choose one of {", ".join(SMOOTH_AVERAGES)}')
        if self.at is not None and not _is_cell(self.at):
            raise UserError(f'at is {self.at!r}: give (row, column), two whole numbers of at least 0')


def _is_cell(at):
    """Is it a pair of integers >= 0?"""
    return isinstance(at, tuple | list) and len(at) == 2 and all(isinstance(n, Integral) and n >= 0 for n in at)


def combined(options: Options, changes: dict[str, Any]) -> Options:
    """`options` with the given fields changed; None means the field's default. Raises UserError for unknown names."""
    defaults: dict[str, Any] = {one.name: one.default for one in fields(Options)}
    unknown = [word for word in changes if word not in defaults]
    if unknown:
        raise UserError(f'unknown option {", ".join(unknown)}: the options are {", ".join(defaults)}')
    if not changes:
        return options
    return replace(options, **{word: defaults[word] if value is None else value for word, value in changes.items()})
