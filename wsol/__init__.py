"""The library's only public door: `attribution`, `load_classifier`, `build_model`, the registries.

Importing does nothing but define names; devices are the caller's choice.
"""

from urllib.error import URLError

from . import attribution, regularization
from .backbones import BACKBONES, backbone_module, pretrained_weights, timm
from .classifiers import load_classifier
from .errors import Unreachable, UserError
from .network import HEADS, Network, initialize_weights
from .registry import lookup
from .weights import load_trained_weights, load_weights, start_weights

__version__ = '1.0.0'  # pyproject.toml reads it here
ARCHITECTURES = tuple(BACKBONES)
ATTRIBUTION_METHODS = tuple(name for name, head in HEADS.items() if head.trainable)
__all__ = [
    'ARCHITECTURES',
    'ATTRIBUTION_METHODS',
    'BACKBONES',
    'UserError',
    'attribution',
    'build_model',
    'load_classifier',
    'load_trained_weights',
    'load_weights',
    'lookup',
    'parameter_groups',
    'regularization',
    'start_weights',
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
            'give pretrained=False, or run once where there is a network'
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
