"""Backbones, one module a family: images [B, 3, h, w] -> F [B, channels, H, W], without pooling and classifier.

Every module defines these four names:

    backbone(architecture, large_feature_map=False, use_bn=False, weights=None)
        -> (nn.Sequential of named modules, channels of F, list of the modules that have no pretrained weights)
        28x28 locations for 224 px with `large_feature_map`, else 14x14; `weights`: of `pretrained_weights`, or None
    SMALL_LR_PATTERNS
        a parameter whose name contains one of these learns at the backbone's rate in the released recipe
    BACKBONE_PATTERNS
        the same for CALM from a CAM checkpoint: the whole backbone, but for Inception's tail, as released
    INIT
        'xavier' or 'he': how the convolutions begin that have no pretrained weights

A new backbone is such a module and a row of BACKBONES; where torchvision publishes weights for it, a row of
PRETRAINED too; where other code bases call its parts otherwise, a row of wsol/foreign_weights.py. The names of the
nn.Sequential's modules are the beginnings of the checkpoint's keys.
"""

from torchvision import models

from ..errors import UserError
from ..registry import lookup
from . import inception, resnet, timm, vgg, vgg_tiny

BACKBONES = {'vgg16': vgg, 'resnet50': resnet, 'inception_v3': inception, 'resnet18': resnet, 'vgg_tiny': vgg_tiny}
PRETRAINED = {  # architecture: torchvision's name of the network whose weights it takes, without and with use_bn
    'vgg16': ('vgg16', 'vgg16_bn'),
    'resnet50': ('resnet50', 'resnet50'),
    'inception_v3': ('inception_v3', 'inception_v3'),
    'resnet18': ('resnet18', 'resnet18'),
}


def backbone_module(architecture):
    """The module that makes the backbone: a row of BACKBONES, or timm.py for timm/<name>; else a UserError."""
    if architecture.startswith(timm.PREFIX):
        return timm
    return lookup(BACKBONES, architecture, 'architecture')


def pretrained_weights(architecture, use_bn=False):
    """What `backbone` takes as `weights`: torchvision's ImageNet ones (IMAGENET1K_V1), or True for timm's own.

    Nothing is downloaded yet. An architecture that has none is a UserError.
    """
    if backbone_module(architecture) is timm:
        return True
    if architecture not in PRETRAINED:
        raise UserError(f'{architecture} has no pretrained weights: give pretrained=False')
    return models.get_model_weights(PRETRAINED[architecture][use_bn]).IMAGENET1K_V1
