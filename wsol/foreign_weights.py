"""State dicts of other code bases under this project's names: pure functions, state dict -> state dict.

Two code bases are known. The WSOL protocol's (github.com/clovaai/wsolevaluation, wsol/*.py): its CAM networks, which
are those of HaS and CutMix too, have the layers of this project's, and call the class scores `fc` (ResNet-50, VGG-16: a
matrix behind the pooling, where a 1x1 convolution stands here) or `SPG_A4` (Inception). torchvision's classifiers: a
ResNet is such a CAM network but for its strides; VGG-16 and Inception end in layers that no network here has.
"""

from typing import NamedTuple

import torch


class Names(NamedTuple):
    """What the modules of an architecture are called elsewhere. A module is what its keys begin with, up to the dot."""

    renamed: dict = {}  # name elsewhere -> name here
    left_out: tuple = ()  # modules that no network here has
    tail: tuple = ()  # modules here that torchvision's network lacks
    numbered: tuple = ()  # modules whose layers are counted together with layers that have no weights


RESNET = Names(renamed={'fc': 'conv_last'}, numbered=('layer3', 'layer4'))  # the protocol's ADL layers stand there
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
    """The `Names` of an architecture: empty where no other code base is known to have it."""
    return NAMES.get(architecture, Names())


def module_of(key):
    """The module that a key belongs to: `layer1` of `layer1.0.conv1.weight`."""
    return key.partition('.')[0]


def modules_of(state_dict):
    """The names of all modules."""
    return {module_of(key) for key in state_dict}


def without_prefix(state_dict):
    """The state dict without the `module.` that a data-parallel run puts before each key."""
    return {key.removeprefix('module.'): value for key, value in state_dict.items()}


def left_out(state_dict, architecture):
    """The modules of a file's state dict that no network here has, in the order of their row."""
    found = modules_of(without_prefix(state_dict))
    return [module for module in names_of(architecture).left_out if module in found]


def own_names(state_dict, architecture):
    """The state dict under this project's names; the matrix of class scores [C, L] as a 1x1 convolution [C, L, 1, 1].

    Batch norms get the counter that old files lack and nothing here reads.
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
    """The state dict with the layers of numbered modules counted as in `own`, the network's own state dict.

    Which layers without weights stand between them depends on the map size (VGG's pools) and on the code base, but the
    layers with weights come in the same order. Where these are not equally many, the module stays as it is.
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
    """The numbers of the layers of a module that have weights, ascending."""
    second = {key.split('.')[1] for key in state_dict if key.startswith(f'{module}.')}
    return sorted(int(number) for number in second if number.isdigit())
