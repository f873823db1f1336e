"""Backbones, one module per family: images [B, 3, h, w] -> F [B, channels, H, W], without pooling and classifier.

Each module defines four names:

    backbone(architecture, large_feature_map=False, use_bn=False, weights=None)
        -> (nn.Sequential of named modules, channels of F, list of modules without pretrained weights)
        28x28 locations at 224 px with `large_feature_map`, else 14x14; `weights`: from `pretrained_weights`, or None
    SMALL_LR_PATTERNS
        parameters whose name contains one of these train at the backbone's learning rate in the released recipe
    BACKBONE_PATTERNS
        the same for CALM from a CAM checkpoint: the whole backbone except Inception's tail, as released
    INIT
        'xavier' or 'he': initialisation of convolutions without pretrained weights

To add a backbone, write such a module and a row of BACKBONES; also a row of PRETRAINED if torchvision has weights for
it, and a row of wsol/foreign_weights.py if other code bases name its modules differently. The names of the
nn.Sequential's modules are the first part of checkpoint keys.
"""

from torchvision import models

from ..errors import UserError
from ..registry import lookup
from . import inception, resnet, timm, vgg, vgg_tiny

BACKBONES = {'vgg16': vgg, 'resnet50': resnet, 'inception_v3': inception, 'resnet18': resnet, 'vgg_tiny': vgg_tiny}
PRETRAINED = {  # architecture: torchvision names of its pretrained network, without and with use_bn
    'vgg16': ('vgg16', 'vgg16_bn'),
    'resnet50': ('resnet50', 'resnet50'),
    'inception_v3': ('inception_v3', 'inception_v3'),
    'resnet18': ('resnet18', 'resnet18'),
}


def backbone_module(architecture):
    """The module that builds the backbone: a row of BACKBONES, or timm.py for timm/<name>. Raises UserError."""
    if architecture.startswith(timm.PREFIX):
        return timm
    return lookup(BACKBONES, architecture, 'architecture')


def pretrained_weights(architecture, use_bn=False):
    """The `weights` argument of `backbone`: torchvision's ImageNet weights (IMAGENET1K_V1), or True for timm's.

    Downloads nothing yet. Raises UserError if the architecture has none.
    """
    if backbone_module(architecture) is timm:
        return True
    if architecture not in PRETRAINED:
        raise UserError(f'{architecture} has no pretrained weights: give pretrained=False')
    return models.get_model_weights(PRETRAINED[architecture][use_bn]).IMAGENET1K_V1
