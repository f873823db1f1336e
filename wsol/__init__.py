"""The library's only public door: `build_model`, the registries, and `parameter_groups`.

Importing does nothing but define names; devices are the caller's choice.
"""

import difflib
from urllib.error import URLError

import torch
from torchvision import models

from . import attribution, inception, regularization, resnet, timm_backbone, vgg, vgg_tiny
from .errors import Unreachable, UserError
from .network import HEADS, Network, initialize_weights

BACKBONES = {'vgg16': vgg, 'resnet50': resnet, 'inception_v3': inception, 'resnet18': resnet, 'vgg_tiny': vgg_tiny}
ARCHITECTURES = tuple(BACKBONES)
ATTRIBUTION_METHODS = tuple(HEADS)
CHOICES = {
    'architecture': ARCHITECTURES,
    'attribution_method': ATTRIBUTION_METHODS,
    'score_map_process': tuple(attribution.MAPS),
}


def lookup(registry, name, what):
    """registry[name]; an unknown name is a ValueError that lists close and valid ones. `what` names the kind of thing."""
    if name not in registry:
        close = difflib.get_close_matches(str(name), registry)
        hint = f'did you mean {" or ".join(close)}? ' if close else ''
        raise UserError(f'unknown {what} {name!r}: {hint}choose one of {", ".join(registry)}')
    return registry[name]


def backbone_module(architecture):
    """The module that makes the backbone: a row of BACKBONES, or timm_backbone for timm/<name>; else a ValueError."""
    return (
        timm_backbone
        if architecture.startswith(timm_backbone.PREFIX)
        else lookup(BACKBONES, architecture, 'architecture')
    )


def build_model(architecture, attribution_method, num_classes, large_feature_map=False, use_bn=False, pretrained=False):
    """The network of `architecture` for `attribution_method`; on images [B, 3, h, w] it returns an object with `probs` [B, C].

    architecture: a name of ARCHITECTURES, or timm/<name> (timm_backbone.py). `pretrained` loads torchvision's ImageNet weights
    (IMAGENET1K_V1, cached, checked by hash), or timm's, into the backbone; without network and cache that is a
    ConnectionError. Unknown names are a ValueError. Released layout: see each backbone's file.
    """
    module = backbone_module(architecture)
    lookup(HEADS, attribution_method, 'attribution method')
    weights = _pretrained_weights(architecture, use_bn) if pretrained else None
    try:
        backbone, channels, fresh = module.backbone(architecture, large_feature_map, use_bn, weights)
    except (URLError, OSError) as error:
        raise Unreachable(
            f'cannot download the pretrained weights of {architecture} ({error}): '
            'give --pretrained=False, or run once where there is a network'
        ) from error
    model = Network(backbone, channels, num_classes, attribution_method)
    heads = [child for name, child in model.named_children() if name not in model.feature_names]
    initialised = pretrained or module is timm_backbone  # timm's networks come with their own initial weights
    initialize_weights(
        [m for root in ([*heads, *fresh] if initialised else [model]) for m in root.modules()], module.INIT
    )
    return model


def _pretrained_weights(architecture, use_bn):
    if architecture.startswith(timm_backbone.PREFIX):
        return True
    if architecture == 'vgg_tiny':
        raise UserError('vgg_tiny has no pretrained weights: give --pretrained=False')
    name = 'vgg16_bn' if architecture == 'vgg16' and use_bn else architecture
    return models.get_model_weights(name).IMAGENET1K_V1


def parameter_groups(model, architecture, lr, lr_classifier_ratio, whole_backbone=False):
    """SGD groups as the released recipe makes them: backbone parameters at lr, all others at lr * lr_classifier_ratio.

    The backbone group holds every parameter whose name contains one of the architecture's patterns: the recipe's few, or
    with `whole_backbone` (CALM from a CAM checkpoint) those of the whole backbone.
    """
    module = backbone_module(architecture)
    patterns = module.BACKBONE_PATTERNS if whole_backbone else module.SMALL_LR_PATTERNS
    named = list(model.named_parameters())
    slow = [p for name, p in named if any(pattern in name for pattern in patterns)]
    fast = [p for name, p in named if not any(pattern in name for pattern in patterns)]
    return [{'params': slow, 'lr': lr}, {'params': fast, 'lr': lr * lr_classifier_ratio}]


def load_weights(model, state_dict, drop_conv_last=False):
    """Load a state dict strictly, with or without the `module.` prefix of a data-parallel run.

    `drop_conv_last` leaves the class scores as they are, and LFI-CAM's importance network, which no other method has (CALM
    from a CAM checkpoint). A dict of another network is a ValueError that names what differs.
    """
    state_dict = {key.removeprefix('module.'): value for key, value in state_dict.items()}
    own = model.state_dict()
    if drop_conv_last:
        heads = ('conv_last.', 'importance.')
        state_dict = {key: value for key, value in state_dict.items() if not key.startswith(heads)}
        state_dict.update({key: value for key, value in own.items() if key.startswith(heads)})
    shape = lambda value: tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
    missing = sorted(own.keys() - state_dict.keys())
    extra = sorted(state_dict.keys() - own.keys())
    wrong = [
        f'{key} {shape(state_dict[key])} instead of {shape(value)}'
        for key, value in own.items()
        if key in state_dict and shape(state_dict[key]) != shape(value)
    ]
    if missing or extra or wrong:
        parts = [
            f'{title} {len(keys)} ({keys[0]})'
            for title, keys in (('missing', missing), ('unexpected', extra), ('of another size', wrong))
            if keys
        ]
        raise UserError(f'weights are of another architecture or class count: {"; ".join(parts)}')
    model.load_state_dict(state_dict, strict=True)
