"""The network every architecture and method shares: backbone features F, class scores f, cue location h."""

from collections import namedtuple

import torch
from torch import nn

from . import calm, cam, lfi_cam

Method = namedtuple('Method', 'p_y_given_x loss log_score gated', defaults=(False,))
Method.__doc__ = """What tells the methods apart, each a function of (f, h[, y]).

p_y_given_x(f, h) [B, C]; loss(f, h, y) [B]; log_score(f, h) [B, C] is the scalar that gradient methods explain:
the logit of CAM and LFI-CAM, log p(y|x) of CALM. gated: f is that of the gated features and h the attention map (lfi_cam.py),
so the head reads the image as well and is not linear in F.
"""

METHODS = {
    'CAM': Method(cam.p_y_given_x, cam.loss, lambda f, h: cam.logits(f)),
    'CALM-EM': Method(calm.p_y_given_x, calm.em_loss, calm.log_p_y_given_x),
    'CALM-ML': Method(calm.p_y_given_x, calm.ml_loss, calm.log_p_y_given_x),
    'LFI-CAM': Method(cam.p_y_given_x, cam.loss, lambda f, h: cam.logits(f), gated=True),
}


class Output:
    """What the network says of a batch: f [B, C, H, W], h [B, 1, H, W], and, computed when asked for, `probs`."""

    def __init__(self, f, h, method):
        self.f, self.h, self.method = f, h, method

    @property
    def probs(self):
        """p(y|x) [B, C]."""
        return self.method.p_y_given_x(self.f, self.h)

    @property
    def log_score(self):
        """The explained scalar of every class [B, C]: CAM's and LFI-CAM's logit, CALM's log p(y|x)."""
        return self.method.log_score(self.f, self.h)

    def float(self):
        """The same in float32, where a loss is safe after a network in mixed precision."""
        return Output(self.f.float(), self.h.float(), self.method)

    def loss(self, y):
        """The training loss of each image [B] for labels y, a LongTensor [B]."""
        return self.method.loss(self.f, self.h, y)


class Network(nn.Module):
    """A torchvision backbone whose modules keep their names, then `conv_last` and `attention`; in LFI-CAM `importance` too.

    backbone: nn.Sequential of named modules, images [B, 3, h, w] -> F [B, channels, H, W].
    Called on images it returns an `Output`.
    """

    def __init__(self, backbone, channels, num_classes, attribution_method):
        super().__init__()
        self.feature_names = [name for name, _ in backbone.named_children()]
        for name, module in backbone.named_children():
            self.add_module(name, module)
        self.conv_last = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.attention = nn.Sequential(nn.Conv2d(channels, 1, kernel_size=1), nn.ReLU())
        self.num_classes = num_classes
        self.attribution_method = attribution_method
        self.method = METHODS[attribution_method]
        if self.method.gated:
            self.importance = lfi_cam.importance_network(channels)

    def forward_features(self, x):
        """Backbone features F [B, channels, H, W] of normalised images [B, 3, h, w]."""
        for name in self.feature_names:
            x = getattr(self, name)(x)
        return x

    def forward_head(self, F, images=None):
        """The `Output` for backbone features F [B, channels, H, W] of images [B, 3, h, w], which only LFI-CAM's head reads."""
        if not self.method.gated:
            return Output(self.conv_last(F), self.attention(F), self.method)
        assert images is not None, "LFI-CAM's head reads the images"
        M = lfi_cam.attention_map(F, lfi_cam.importance(self.importance(lfi_cam.masked_images(F, images))))
        return Output(self.conv_last(lfi_cam.gated(F, M)), M, self.method)

    def forward(self, x):
        return self.forward_head(self.forward_features(x), x)


@torch.no_grad()
def initialize_weights(modules, mode):
    """Convolutions by Xavier ('xavier') or He ('he') with zero bias, batch norms to one and zero (as the released code)."""
    for module in modules:
        if isinstance(module, nn.Conv2d):
            if mode == 'he':
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
