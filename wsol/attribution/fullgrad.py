"""FullGrad: gradients times what they multiply, at the input and at every bias of a convolution or batch norm.

    f_b(x)   b dS_y/db at every location of a layer: its bias times the gradient of its output    [B, L, H, W]
    psi      |.| of a channel, scaled to [0, 1] and resized to the image

Source: Srinivas and Fleuret, NeurIPS 2019. Errors: those of common.explainer and common.chosen.
"""

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .common import Options, chosen, explainer, gradients_by_class, groups_of, scores_of
from .postprocessing import upsample

CHUNK = 2**16  # numbers of a layer that psi takes at once: so many stay in a cache


def _convolution_bias(input, weight, bias=None, *_, **__):
    """The bias [L] of functional.conv2d, or None."""
    return bias


def _batch_norm_bias(input, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """The bias [L] of functional.batch_norm in eval mode, the running mean's part too; None where there is none."""
    if training or mean is None:
        return bias
    scale = (1 if weight is None else weight) / torch.sqrt(var + eps)
    return (0 if bias is None else bias) - mean * scale


class Probe(torch.autograd.Function):
    """A layer's output, as it is; what read(G, bias) makes of its gradient G goes to `probe` as its gradient.

    The output is handed on itself, not a copy or a view: layers above may work in place, and no G outlives its layer.
    """

    @staticmethod
    def forward(ctx, output, probe, bias, read):
        ctx.mark_dirty(output)
        ctx.bias, ctx.read = bias, read
        return output

    @staticmethod
    def backward(ctx, G):
        return G, ctx.read(G, ctx.bias), None, None


class Biases(TorchFunctionMode):
    """Puts a `Probe` [B, H, W] behind every convolution and batch norm with a bias that is called inside, as a module
    or a function; no module is touched.

    read: (G [B, L, H, W], bias [L]) -> [B, H, W].
    """

    BIAS_OF = {functional.conv2d: _convolution_bias, functional.batch_norm: _batch_norm_bias}

    def __init__(self, read):
        super().__init__()
        self.read = read
        self.probes = []

    def __torch_function__(self, function, types, args=(), named=None):
        named = named or {}
        result = function(*args, **named)
        bias = self.BIAS_OF[function](*args, **named) if function in self.BIAS_OF else None
        if bias is None or result.ndim != 4 or not result.requires_grad:
            return result
        self.probes.append(result.new_zeros(len(result), *result.shape[2:], requires_grad=True))
        return Probe.apply(result, self.probes[-1], bias.detach(), self.read)


def _psi(G, b=None):
    """sum over the channels of |b_k G_k|, each scaled to [0, 1], a constant one 0: [B, H, W] from G [B, L, H, W] and b
    [L] (None: 1); psi before it is resized. Scaled, |b_k| cancels out, unless it is 0."""
    total = G.new_zeros(len(G), G.shape[2] * G.shape[3])
    channels = max(1, CHUNK // G[:, 0].numel())
    for first in range(0, G.shape[1], channels):
        rows = slice(first, first + channels)
        size = G[:, rows].abs().flatten(2)  # [B, n, H W]
        low, high = size.amin(dim=2), size.amax(dim=2)  # [B, n]
        alive = high > low if b is None else (high > low) & (b[rows] != 0)
        scale = torch.where(alive, 1 / (high - low).clamp(min=torch.finfo(G.dtype).tiny), 0)
        total += torch.bmm(scale[:, None], size)[:, 0] - (low * scale).sum(dim=1, keepdim=True)
    return total.view(len(G), *G.shape[2:])


@explainer
def full_grad(model, images, target=None, options=Options()):
    """sum_c psi(x_c dS_y/dx_c) + sum_layers sum_k psi(b_k dS_y/dA_k): FullGrad (Srinivas and Fleuret, NeurIPS 2019,
    eq. 7), at image size.

    A layer's b is the bias of a convolution or a batch norm, which has its running mean's part in it; biases without
    locations are left out. psi scales every channel by itself, as pytorch-grad-cam's does; the authors' code scales a
    layer's channels together. One forward and one backward pass through all layers; target_layer plays no part.

    >>> full_grad(model, images, target=[3, 1]).shape
    torch.Size([2, 16, 16])
    """
    firsts, owner = groups_of(images, options)
    x = (images if owner is None else images[firsts]).detach().requires_grad_()
    with Biases(_psi) as biases:
        scores = scores_of(model, x.clone())
    target = chosen(scores if owner is None else scores[owner], target)[1]
    at_input, *found = gradients_by_class(scores, target, owner, [x, *biases.probes], unused=True)
    of_size = {}  # resizing is linear: once for all layers of a size
    for one in found:
        of_size[one.shape] = of_size.get(one.shape, 0) + one
    return _psi(images * at_input) + sum(upsample(one, images.shape[2:]) for one in of_size.values())
