"""Attribution maps by name: readouts of the network's own heads, and gradient methods."""
from .readouts import READOUTS, SUPERCLASS_READOUTS, class_maps

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    smooth_grad_nr_iter: int = 50
    smooth_grad_sigma: float = 4.0
    integrated_grad_nr_iter: int = 50
    batch_size: int = 64


PROCESSES = tuple(READOUTS)


def lookup(name):
    if name not in PROCESSES:
        raise ValueError(name)
