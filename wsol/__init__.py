"""The library's only public door: `build_model`, the registries, and `parameter_groups`.

Importing does nothing but define names; devices are the caller's choice.
"""

from urllib.error import URLError

import torch

from . import attribution, regularization
from .backbones import BACKBONES, backbone_module, pretrained_weights, timm
from .errors import Unreachable, UserError
from .network import HEADS, Network, initialize_weights
from .registry import lookup

ARCHITECTURES = tuple(BACKBONES)
ATTRIBUTION_METHODS = tuple(name for name, head in HEADS.items() if head.trainable)
__all__ = [
    'ARCHITECTURES',
    'ATTRIBUTION_METHODS',
    'BACKBONES',
    'attribution',
    'build_model',
    'load_weights',
    'lookup',
    'parameter_groups',
    'regularization',
]


def build_model(
    architecture: str,
    attribution_method: str,
    num_classes: int,
    large_feature_map: bool = False,
    use_bn: bool = False,
    pretrained: bool = False,
) -> Network:
    """The network of `architecture` for `attribution_method`: images [B, 3, h, w] -> an object with `probs` [B, C].

    architecture: a name of ARCHITECTURES, or timm/<name> (backbones/timm.py). large_feature_map: 28x28 locations for
    224 px instead of 14x14. use_bn: batch norm where the architecture leaves the choice (backbones/). `pretrained`
    loads torchvision's ImageNet weights (IMAGENET1K_V1, cached, checked by hash), or timm's, into the backbone;
    without network and cache that is an Unreachable error. Unknown names are a UserError. Released layout: see each
    backbone.

    >>> import torch
    >>> import wsol
    >>> model = wsol.build_model('resnet18', 'CALM-EM', num_classes=5).eval()
    >>> with torch.no_grad():
    ...     output = model(torch.zeros(2, 3, 224, 224))
    >>> output.probs.shape
    torch.Size([2, 5])
    """
    module = backbone_module(architecture)
    lookup({name: HEADS[name] for name in ATTRIBUTION_METHODS}, attribution_method, 'attribution method')
    weights = pretrained_weights(architecture, use_bn) if pretrained else None
    try:
        backbone, channels, fresh = module.backbone(architecture, large_feature_map, use_bn, weights)
    except (URLError, OSError) as error:
        raise Unreachable(
            f'cannot download the pretrained weights of {architecture} ({error}): '
            'give --pretrained=False, or run once where there is a network'
        ) from error
    model = Network(backbone, channels, num_classes, attribution_method)
    heads = [child for name, child in model.named_children() if name not in model.feature_names]
    initialised = pretrained or module is timm  # timm's networks come with their own initial weights
    roots = [*heads, *fresh] if initialised else [model]
    initialize_weights([m for root in roots for m in root.modules()], module.INIT)
    return model


def parameter_groups(model, architecture, lr, lr_classifier_ratio, whole_backbone=False):
    """SGD groups as the released recipe makes them: backbone parameters at lr, all others at lr * lr_classifier_ratio.

    The backbone group holds every parameter whose name contains one of the architecture's patterns: the recipe's few,
    or with `whole_backbone` (CALM from a CAM checkpoint) those of the whole backbone, Inception's tail excepted.
    """
    module = backbone_module(architecture)
    patterns = module.BACKBONE_PATTERNS if whole_backbone else module.SMALL_LR_PATTERNS
    named = list(model.named_parameters())
    slow = [p for name, p in named if any(pattern in name for pattern in patterns)]
    fast = [p for name, p in named if not any(pattern in name for pattern in patterns)]
    return [{'params': slow, 'lr': lr}, {'params': fast, 'lr': lr * lr_classifier_ratio}]


def load_weights(model, state_dict, drop_conv_last=False):
    """Load a state dict strictly, with or without the `module.` prefix of a data-parallel run.

    `drop_conv_last` leaves the class scores as they are, and LFI-CAM's importance network, which no other method has
    (CALM from a CAM checkpoint). A dict of another network is a UserError that names what differs.
    """
    state_dict = {key.removeprefix('module.'): value for key, value in state_dict.items()}
    own = model.state_dict()
    if drop_conv_last:
        heads = ('conv_last.', 'importance.')
        state_dict = {key: value for key, value in state_dict.items() if not key.startswith(heads)}
        state_dict.update({key: value for key, value in own.items() if key.startswith(heads)})
    missing = sorted(own.keys() - state_dict.keys())
    extra = sorted(state_dict.keys() - own.keys())
    wrong = [
        f'{key} {_shape(state_dict[key])} instead of {_shape(value)}'
        for key, value in own.items()
        if key in state_dict and _shape(state_dict[key]) != _shape(value)
    ]
    if missing or extra or wrong:
        parts = [
            f'{title} {len(keys)} ({keys[0]})'
            for title, keys in (('missing', missing), ('unexpected', extra), ('of another size', wrong))
            if keys
        ]
        raise UserError(f'weights are of another architecture or class count: {"; ".join(parts)}')
    model.load_state_dict(state_dict, strict=True)


def _shape(value):
    """A tensor's shape, or the name of the type of what should have been one."""
    return tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
