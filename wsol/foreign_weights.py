"""Rename state dicts of other code bases to this project's names. Pure functions, state dict -> state dict.

Two code bases are supported. CAM networks of the WSOL protocol (github.com/clovaai/wsolevaluation, wsol/*.py; also HaS
and CutMix) have the same layers and call the class scores `fc` (ResNet-50, VGG-16: a matrix after pooling instead of a
1x1 convolution) or `SPG_A4` (Inception). torchvision classifiers: a ResNet is the same CAM network with other strides;
VGG-16 and Inception have final layers that no network here has.
"""

from typing import NamedTuple

import torch


class Names(NamedTuple):
    """Names of an architecture's modules elsewhere. A module is the part of a key before the first dot."""

    renamed: dict = {}  # name elsewhere -> name here
    left_out: tuple = ()  # modules that no network here has
    tail: tuple = ()  # modules here that torchvision's network lacks
    numbered: tuple = ()  # modules whose numbering also counts layers without weights


RESNET = Names(renamed={'fc': 'conv_last'}, numbered=('layer3', 'layer4'))  # for the protocol's ADL layers
NAMES = {
    'resnet18': RESNET,
    'resnet50': RESNET,
    'vgg16': Names({'fc': 'conv_last'}, left_out=('classifier',), tail=('conv6', 'bn6'), numbered=('features',)),
    'inception_v3': Names(
        {'SPG_A3_1b': 'A3_1b', 'SPG_A3_2b': 'A3_2b', 'SPG_A4': 'conv_last'},
        left_out=('AuxLogits', 'Mixed_7a', 'Mixed_7b', 'Mixed_7c', 'fc'),
        tail=('A3_1b', 'A3_2b'),
    ),
    'vgg_tiny': Names(numbered=('features',)),
}


def names_of(architecture):
    """The `Names` of an architecture; empty if no other code base has it."""
    return NAMES.get(architecture, Names())


def module_of(key):
    """Module of a key: `layer1` for `layer1.0.conv1.weight`."""
    return key.partition('.')[0]


def modules_of(state_dict):
    """Names of all modules."""
    return {module_of(key) for key in state_dict}


def without_prefix(state_dict):
    """The state dict without the `module.` prefix of data-parallel runs."""
    return {key.removeprefix('module.'): value for key, value in state_dict.items()}


def left_out(state_dict, architecture):
    """Modules of a state dict that no network here has, in the order of `Names.left_out`."""
    found = modules_of(without_prefix(state_dict))
    return [module for module in names_of(architecture).left_out if module in found]


def own_names(state_dict, architecture):
    """The state dict under this project's names; class scores [C, L] become a 1x1 convolution [C, L, 1, 1].

    Adds num_batches_tracked, which old files lack, to batch norms.
    """
    renamed = names_of(architecture).renamed
    result = {}
    for key, value in without_prefix(state_dict).items():
        module = module_of(key)
        result[renamed.get(module, module) + key[len(module) :]] = value
    scores = result.get('conv_last.weight')
    if torch.is_tensor(scores) and scores.ndim == 2:
        result['conv_last.weight'] = scores[:, :, None, None]  # [C, L, 1, 1]
    for key in [key for key in result if key.endswith('.running_var')]:
        result.setdefault(key.removesuffix('running_var') + 'num_batches_tracked', torch.tensor(0))
    return result


def renumbered(state_dict, own, architecture):
    """The state dict with layers of numbered modules renumbered to match `own`, the network's state dict.

    Layers without weights in between vary with map size (VGG's pools) and code base, but the layers with weights keep
    their order. A module with a different number of them is left unchanged.
    """
    numbers = {}
    for module in names_of(architecture).numbered:
        there = _numbers(state_dict, module)
        here = _numbers(own, module)
        if len(there) == len(here):
            numbers.update((f'{module}.{old}', f'{module}.{new}') for old, new in zip(there, here))
    result = {}
    for key, value in state_dict.items():
        layer = '.'.join(key.split('.')[:2])
        result[numbers.get(layer, layer) + key[len(layer) :]] = value
    return result


def _numbers(state_dict, module):
    """Numbers of a module's layers that have weights, ascending."""
    second = {key.split('.')[1] for key in state_dict if key.startswith(f'{module}.')}
    return sorted(int(number) for number in second if number.isdigit())
