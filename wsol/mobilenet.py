"""MobileNetV3-small backbone for CPUs (not in the paper): 28x28 (large_feature_map) or 14x14 locations for 224 px."""
from collections import OrderedDict

from torch import nn
from torchvision import models

CHANNELS = 576
STRIDED = {'14x14': ('9',), '28x28': ('4', '9')}         # blocks of torchvision's `features` set to stride 1
SMALL_LR_PATTERNS = ('features.',)
BACKBONE_PATTERNS = ('features.',)
INIT = 'xavier'


def backbone(architecture, large_feature_map=False, use_bn=False, weights=None):
    """(nn.Sequential, channels, modules that have no pretrained weights). `use_bn` changes nothing: it has batch norm."""
    features = getattr(models, architecture)(weights=weights).features
    for index in STRIDED['28x28' if large_feature_map else '14x14']:
        for module in features[int(index)].modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return nn.Sequential(OrderedDict(features=features)), CHANNELS, []
