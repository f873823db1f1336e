"""Public interface of the library: `attribution`, `load_classifier`, `build_model`, the registries.

Importing it only defines names; the caller chooses devices.
"""

from urllib.error import URLError

from . import attribution, regularization
from .backbones import BACKBONES, backbone_module, pretrained_weights, timm
from .classifiers import load_classifier
from .errors import Unreachable, UserError
from .network import HEADS, Network, initialize_weights
from .registry import lookup
from .weights import load_trained_weights, load_weights, start_weights

__version__ = '1.1.0'  # pyproject.toml reads it here
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
    """Build the network of `architecture` for `attribution_method`: images [B, 3, h, w] -> `Output`.

    architecture: a name in ARCHITECTURES, or timm/<name> (backbones/timm.py). large_feature_map: 28x28 locations at
    224 px instead of 14x14. use_bn: add batch norm where the architecture makes it optional (backbones/). pretrained:
    load ImageNet weights into the backbone, torchvision's (IMAGENET1K_V1, cached, checked by hash) or timm's. Raises
    UserError for unknown names and Unreachable if the weights are neither cached nor downloadable.

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
            'give pretrained=False, or run once with network access'
        ) from error
    model = Network(backbone, channels, num_classes, attribution_method)
    heads = [child for name, child in model.named_children() if name not in model.feature_names]
    initialised = pretrained or module is timm  # timm initialises its own networks
    roots = [*heads, *fresh] if initialised else [model]
    initialize_weights([m for root in roots for m in root.modules()], module.INIT)
    return model


def parameter_groups(model, architecture, lr, lr_classifier_ratio, whole_backbone=False):
    """SGD parameter groups of the released recipe: backbone at lr, everything else at lr * lr_classifier_ratio.

    A parameter belongs to the backbone if its name contains one of the architecture's SMALL_LR_PATTERNS or, with
    `whole_backbone` (CALM from a CAM checkpoint), BACKBONE_PATTERNS.
    """
    module = backbone_module(architecture)
    patterns = module.BACKBONE_PATTERNS if whole_backbone else module.SMALL_LR_PATTERNS
    named = list(model.named_parameters())
    slow = [p for name, p in named if any(pattern in name for pattern in patterns)]
    fast = [p for name, p in named if not any(pattern in name for pattern in patterns)]
    return [{'params': slow, 'lr': lr}, {'params': fast, 'lr': lr * lr_classifier_ratio}]
