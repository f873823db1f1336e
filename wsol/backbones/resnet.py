"""ResNet backbones with a finer map: 28x28 (large_feature_map) or 14x14 locations at 224 px (released strides)."""

from collections import OrderedDict

from torch import nn
from torchvision import models

STRIDE_ONE = {'resnet18': 'conv1', 'resnet50': 'conv2'}  # strided convolution in a stage's first block
CHANNELS = {'resnet18': 512, 'resnet50': 2048}
SMALL_LR_PATTERNS = ('conv1', 'layer1', 'layer2', 'layer3')
BACKBONE_PATTERNS = ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4')
INIT = 'xavier'


def backbone(architecture, large_feature_map=False, use_bn=False, weights=None):
    """(nn.Sequential, channels, modules without pretrained weights). Ignores `use_bn`: ResNets have batch norm."""
    net = getattr(models, architecture)(weights=weights)
    for stage in [net.layer3, net.layer4] if large_feature_map else [net.layer4]:
        getattr(stage[0], STRIDE_ONE[architecture]).stride = (1, 1)
        stage[0].downsample[0].stride = (1, 1)
    names = ('conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4')
    return nn.Sequential(OrderedDict((name, getattr(net, name)) for name in names)), CHANNELS[architecture], []
