"""FullGrad: gradients times what they multiply, at the input and at every bias of a convolution or batch norm.

    f_b(x)   b dS_y/db at every location of a layer: its bias times the gradient of its output    [B, L, H, W]
    psi      |.| of a channel, scaled to [0, 1] and resized to the image

Source: Srinivas and Fleuret, NeurIPS 2019. Errors: those of common.explainer and common.chosen.
"""

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .common import Options, chosen, distinct, explainer, gradients_by_class, scores_of
from .maps import upsample


def _convolution_bias(input, weight, bias=None, *_, **__):
    """The bias [L] of functional.conv2d, or None."""
    return bias


def _batch_norm_bias(input, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """The bias [L] of functional.batch_norm in eval mode, the running mean's part too; None where there is none."""
    if training or mean is None:
        return bias
    scale = (1 if weight is None else weight) / torch.sqrt(var + eps)
    return (0 if bias is None else bias) - mean * scale


class Biases(TorchFunctionMode):
    """Keeps (bias [L], output [B, L, H, W]) of every convolution and batch norm that is called inside, as a module or a
    function; no module is touched."""

    BIAS_OF = {functional.conv2d: _convolution_bias, functional.batch_norm: _batch_norm_bias}

    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_function__(self, function, types, args=(), named=None):
        named = named or {}
        result = function(*args, **named)
        bias = self.BIAS_OF[function](*args, **named) if function in self.BIAS_OF else None
        if bias is None or result.ndim != 4 or not result.requires_grad:
            return result
        self.kept.append((bias.detach(), result))
        return result.clone()  # a layer above may work in place: what is kept stays as it is


def _psi(G, b=None):
    """sum over the channels of |b_k G_k|, each scaled to [0, 1], a constant one 0: [B, H, W] from G [B, L, H, W] and b
    [L] (None: 1); psi before it is resized.

    Scaled, |b_k| cancels out, unless it is 0; what is left reads every layer three times, where the formula reads and
    writes it seven times.
    """
    size = G.abs()
    low, high = size.flatten(2).aminmax(dim=2)  # [B, L]
    alive = high > low if b is None else (high > low) & (b != 0)
    scale = torch.where(alive, 1 / (high - low).clamp(min=torch.finfo(G.dtype).tiny), 0)
    return torch.einsum('blhw,bl->bhw', size, scale) - (low * scale).sum(dim=1)[:, None, None]


@explainer
def full_grad(model, images, target=None, options=Options()):
    """sum_c psi(x_c dS_y/dx_c) + sum_layers sum_k psi(b_k dS_y/dA_k): FullGrad (Srinivas and Fleuret, NeurIPS 2019,
    eq. 7), at image size.

    A layer's b is the bias of a convolution or a batch norm, which has its running mean's part in it; biases without
    locations are left out. psi scales every channel by itself, as pytorch-grad-cam's does; the authors' code scales a
    layer's channels together. One forward and one backward pass through all layers; target_layer plays no part.
    """
    firsts, owner = distinct(images)
    x = (images if owner is None else images[firsts]).detach().requires_grad_()
    with Biases() as biases:
        scores = scores_of(model, x.clone())
    target = chosen(scores if owner is None else scores[owner], target)[1]
    outputs = [output for _, output in biases.kept]
    at_input, *gradients = gradients_by_class(scores, target, owner, [x, *outputs], unused=True)
    total = _psi(images * at_input)
    for (bias, _), G in zip(biases.kept, gradients):
        total = total + upsample(_psi(G, bias), images.shape[2:])
    return total
