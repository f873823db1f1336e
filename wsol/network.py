"""The network shared by all architectures and heads: backbone features F, class scores f, cue location h."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from . import calm, cam, lfi_cam
from .preprocessing import PAPER


class Head(NamedTuple):
    """One row per head. The functions take f [B, C, H, W] and h [B, 1, H, W]."""

    p_y_given_x: Callable  # (f, h) -> p(y|x) [B, C], the prediction
    loss: Callable  # (f, h, y) -> training loss of each image [B] for labels y [B]
    log_score: Callable  # (f, h) -> the scalar per class that gradient and perturbation maps explain [B, C]
    scalar: str  # name of that scalar
    own_map: str  # the head's default map, a name in attribution.MAPS
    attends: bool = True  # do prediction and loss use the attention?
    unsuited: tuple = ()  # readouts (attribution.READOUTS) of a p(z|x) that this head does not train
    units: dict = {}  # units of its maps that differ from attribution.MAPS
    gated: bool = False  # LFI-CAM: f comes from gated features, h is the attention map M, and the head needs the image
    linear: bool = False  # log_score is linear in the features F
    posterior: Callable | None = None  # (f, h, y) -> p'(z|x,y) [B, H, W], the optional fourth argument of loss
    trainable: bool = True  # False: only for classifiers trained elsewhere


CAM = Head(
    cam.p_y_given_x,
    cam.loss,
    cam.log_score,
    scalar='the logit',
    own_map='vanilla',
    attends=False,
    unsuited=('jointll', 'gtcond', 'saliency'),
    linear=True,
)
CALM = Head(calm.p_y_given_x, calm.ml_loss, calm.log_p_y_given_x, scalar='log p(y|x)', own_map='jointll')
HEADS = {
    'CAM': CAM,
    'CALM-EM': CALM._replace(loss=calm.em_loss, posterior=calm.e_step),
    'CALM-ML': CALM,
    'LFI-CAM': CAM._replace(
        unsuited=('jointll', 'gtcond'), units={'saliency': 'attention M'}, gated=True, linear=False
    ),
    'classifier': CAM._replace(  # classifiers.PlainClassifier: logits only, no class map
        own_map='grad_cam',
        unsuited=('vanilla', 'vanilla_saliency', 'jointll', 'gtcond', 'saliency'),
        linear=False,
        trainable=False,
    ),
}
CAM_OF_ONE_OUTPUT = CAM._replace(p_y_given_x=cam.p_of_one_output)  # one sigmoid output (classifiers.py)


class Output:
    """Network output for a batch: f [B, C, H, W], h [B, 1, H, W]; `probs` and the rest are computed on access."""

    def __init__(self, f, h, head):
        self.f = f
        self.h = h
        self.head = head

    @property
    def probs(self):
        """p(y|x) [B, C]."""
        return self.head.p_y_given_x(self.f, self.h)

    @property
    def log_score(self):
        """The explained scalar per class [B, C]: the logit for CAM and LFI-CAM, log p(y|x) for CALM."""
        return self.head.log_score(self.f, self.h)

    def image(self, b):
        """The output for image b as a batch of one."""
        return Output(self.f[b : b + 1], self.h[b : b + 1], self.head)

    def float(self):
        """The output in float32, so that losses are safe after mixed precision."""
        return Output(self.f.float(), self.h.float(), self.head)

    def posterior(self, y):
        """p'(z|x,y) for labels y [B, H, W], detached. Only for heads with Head.posterior."""
        return self.head.posterior(self.f, self.h, y)

    def loss(self, y, posterior=None):
        """Training loss per image [B] for labels y, a LongTensor [B].

        posterior: p'(z|x,y) [B, H, W] from another network, for heads with Head.posterior; None: the head's own.
        """
        return self.head.loss(self.f, self.h, y, *([] if posterior is None else [posterior]))


class Forward(NamedTuple):
    """How a network is run. It stores no network, so a deep copy of a network runs its own weights."""

    function: Callable  # (network, images) -> F or logits, possibly compiled
    dtype: torch.dtype | None = None  # autocast type; None: no mixed precision
    layout: torch.memory_format | None = None  # memory format of the images; None: unchanged

    def __call__(self, network, images):
        """The function's result, in the images' dtype."""
        if self.layout is not None:
            images = images.contiguous(memory_format=self.layout)
        if self.dtype is None:
            return self.function(network, images)
        with torch.autocast(images.device.type, self.dtype):
            return self.function(network, images).to(images.dtype)


def run_backbone(network, images):
    """Backbone features F [B, channels, H, W] of a `Network` for images [B, 3, h, w]."""
    for name in network.feature_names:
        images = getattr(network, name)(images)
    return images


class Network(nn.Module):
    """A backbone whose modules keep their names, plus `conv_last` and `attention`, and `importance` for LFI-CAM.

    backbone: nn.Sequential of named modules, images [B, 3, h, w] -> F [B, channels, H, W]. Returns an `Output`.
    """

    image_size = 224  # side of the training images, px
    class_names: list[str] | None = None  # None: unknown

    def __init__(self, backbone, channels, num_classes, attribution_method):
        super().__init__()
        self.feature_names = [name for name, _ in backbone.named_children()]
        for name, module in backbone.named_children():
            self.add_module(name, module)
        self.conv_last = nn.Conv2d(channels, num_classes, kernel_size=1)
        self.attention = nn.Sequential(nn.Conv2d(channels, 1, kernel_size=1), nn.ReLU())
        self.num_classes = num_classes
        self.preprocessing = getattr(backbone, 'preprocessing', PAPER)  # expected by the pretrained weights
        self.attribution_method = attribution_method
        self.head = HEADS[attribution_method]
        self.run = Forward(run_backbone)
        if self.head.gated:
            self.importance = lfi_cam.importance_network(channels)

    def forward_features(self, x):
        """Backbone features F [B, channels, H, W] of normalised images [B, 3, h, w]."""
        return self.run(self, x)

    def forward_head(self, F, images=None):
        """The `Output` for features F [B, channels, H, W]. images [B, 3, h, w]: needed only by LFI-CAM's head."""
        if not self.head.gated:
            return Output(self.conv_last(F), self.attention(F), self.head)
        assert images is not None, "LFI-CAM's head needs the images"
        M = lfi_cam.attention_map(F, lfi_cam.importance(self.importance(lfi_cam.masked_images(F, images))))
        return Output(self.conv_last(lfi_cam.gated(F, M)), M, self.head)

    def forward(self, x):
        return self.forward_head(self.forward_features(x), x)


@torch.no_grad()
def initialize_weights(modules, mode):
    """As released: convolutions by Xavier ('xavier') or He ('he') with zero bias, batch norms to 1 and 0."""
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
