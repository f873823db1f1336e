"""Input gradient methods: S_y(x) is the explained scalar of class y, x an image [c, h, w], z one of its pixels.

The released maps (input_grad, smooth_grad, smooth_grad_square, var_grad, integrated_grad; all but the third are rows in
the paper) are built from max_c |dS_y/dx_c|. The textbook method is `integrated_gradients`. Maps are [B, h, w], at image
size. Errors: see common.explainer and common.chosen.
"""

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import UserError
from .common import (
    Options,
    baseline_of,
    chosen,
    chunks,
    explainer,
    gradients_by_class,
    groups_of,
    noise_streams,
    predicted,
    repeated,
    scores_of,
    standard_normal,
    uniform,
)

SHAP_SAMPLES = 50  # GradientSHAP's default


def image_gradients(model, images, target, groups):
    """(dS_y/dx [B, c, h, w], y [B]) from one forward pass, and one backward pass per class of an image.

    groups: of the rows, from `groups_of`; target None: the prediction.
    """
    firsts, owner = groups
    x = (images if owner is None else images[firsts]).detach().requires_grad_()
    scores = scores_of(model, x.clone())  # the model may modify its input in place
    target = chosen(scores if owner is None else scores[owner], target)[1]
    return gradients_by_class(scores, target, owner, [x])[0], target


def strength(gradients):
    """max over the channels of |g|: [B, h, w] from [B, c, h, w]."""
    return gradients.abs().amax(dim=1)  # [B, h, w]


@explainer
def input_grad(model, images, target=None, options=Options()):
    """max_c |dS_y/dx_c|: gradient saliency (Simonyan et al., 2014) as released.

    >>> input_grad(model, images, target=[3, 1]).shape
    torch.Size([2, 16, 16])
    """
    return strength(image_gradients(model, images, target, groups_of(images, options))[0])


def _noisy_strengths(model, images, target, options):
    """Yields smooth_grad_nr_iter maps max_c |dS_y/dx_c| [B, h, w] at images + noise.

    The noise is Gaussian with deviation (max - min of the image) / smooth_grad_sigma; none if smooth_grad_sigma is 0.
    """
    b = len(images)
    n = options.smooth_grad_nr_iter
    target = predicted(model, images, target)
    pixels = images.flatten(1)
    span = (pixels.amax(dim=1) - pixels.amin(dim=1)).view(b, 1, 1, 1)
    sigma = span / options.smooth_grad_sigma if options.smooth_grad_sigma else torch.zeros_like(span)
    streams = noise_streams(images, options)
    for rows in chunks(n, max(1, options.batch_size // b), options, 'noisy images'):
        m = rows.stop - rows.start
        noisy = [images + sigma * standard_normal(images.shape[1:], streams, images) for _ in range(m)]
        groups = repeated(groups_of(images, options), b, m)
        maps = strength(image_gradients(model, torch.cat(noisy), target.repeat(m), groups)[0])
        yield from maps.view(m, b, *maps.shape[1:])  # m times [B, h, w]


def moments(samples):
    """(mean, variance over n) of an iterable of n tensors by Welford's update, which avoids differences of large
    squares; in float32 or better."""
    mean = spread = None
    for n, sample in enumerate(samples, start=1):
        sample = sample.to(torch.promote_types(sample.dtype, torch.float32))
        if mean is None:
            mean = torch.zeros_like(sample)
            spread = torch.zeros_like(sample)
        off = sample - mean
        mean = mean + off / n
        spread = spread + off * (sample - mean)
    return mean, spread / n


def _noisy_moments(model, images, target, options):
    """`moments` of `_noisy_strengths`, computed once for the maps that share it."""
    shared = {} if options.shared is None else options.shared
    classes = None if target is None else target.tolist()
    if 'noisy' not in shared:
        shared['noisy'] = images, classes, moments(_noisy_strengths(model, images, target, options))
    images_before, classes_before, found = shared['noisy']
    if classes != classes_before or not torch.equal(images_before, images):
        raise UserError('shared was filled for other images or classes: give each batch a dict of its own')
    return found


@explainer
def smooth_grad(model, images, target=None, options=Options()):
    """mean_i m_i, m_i = max_c |dS_y/dx_c| at the i-th noisy copy: SmoothGrad (Smilkov et al., 2017) as released.

    >>> smooth_grad(model, images, target=[3, 1], smooth_grad_nr_iter=5).shape
    torch.Size([2, 16, 16])
    """
    return _noisy_moments(model, images, target, options)[0].to(images.dtype)


@explainer
def smooth_grad_square(model, images, target=None, options=Options()):
    """mean_i m_i^2, SmoothGrad-squared (Hooker et al., NeurIPS 2019) as released; m_i as in smooth_grad.

    >>> smooth_grad_square(model, images, target=[3, 1], smooth_grad_nr_iter=5).shape
    torch.Size([2, 16, 16])
    """
    mean, variance = _noisy_moments(model, images, target, options)
    return (variance + mean.square()).to(images.dtype)


@explainer
def var_grad(model, images, target=None, options=Options()):
    """mean_i m_i^2 - (mean_i m_i)^2, VarGrad (Adebayo et al., NeurIPS 2018) as released; m_i as in smooth_grad.

    >>> var_grad(model, images, target=[3, 1], smooth_grad_nr_iter=5).shape
    torch.Size([2, 16, 16])
    """
    return _noisy_moments(model, images, target, options)[1].to(images.dtype)


def _path_gradients(model, images, target, options, positions):
    """Yields dS_y/dx [B, c, h, w] at baseline + position (images - baseline), position after position."""
    b = len(images)
    target = predicted(model, images, target)
    start = baseline_of(images, options)
    groups = groups_of(images, options)
    for rows in chunks(len(positions), max(1, options.batch_size // b), options, 'path'):
        points = [start + position * (images - start) for position in positions[rows]]
        of_points = repeated(groups, b, len(points))
        gradients = image_gradients(model, torch.cat(points), target.repeat(len(points)), of_points)[0]
        yield from gradients.view(len(points), *images.shape)  # [B, c, h, w] each


@explainer
def integrated_grad(model, images, target=None, options=Options()):
    """(1/n) sum_{i=0..n} max_c |dS_y/dx_c| at x' + (i/n)(x - x'): as released, n + 1 points, no factor x - x'.

    n = integrated_grad_nr_iter; x' = 0 by default, as released.

    >>> integrated_grad(model, images, target=[3, 1], integrated_grad_nr_iter=5).shape
    torch.Size([2, 16, 16])
    """
    n = options.integrated_grad_nr_iter
    path = _path_gradients(model, images, target, options, [i / n for i in range(n + 1)])
    total = sum(strength(g).to(torch.promote_types(g.dtype, torch.float32)) for g in path)
    return (total / n).to(images.dtype)


@explainer
def integrated_gradients_by_channel(model, images, target=None, options=Options()):
    """(x - x') integral_0^1 dS_y/dx(x' + a (x - x')) da, [B, c, h, w], signed (Sundararajan et al., ICML 2017, eq. 1).

    Gauss-Legendre quadrature with integrated_grad_nr_iter points.
    """
    nodes, weights = np.polynomial.legendre.leggauss(options.integrated_grad_nr_iter)  # on [-1, 1]
    positions = ((nodes + 1) / 2).tolist()
    weights = (weights / 2).tolist()
    path = _path_gradients(model, images, target, options, positions)
    integral = sum(w * g.to(torch.promote_types(g.dtype, torch.float32)) for w, g in zip(weights, path))
    return ((images - baseline_of(images, options)) * integral).to(images.dtype)


def integrated_gradients(model, images, target=None, options=Options(), **changes):
    """integrated_gradients_by_channel summed over channels: [B, h, w], signed; it sums to S_y(x) - S_y(x').

    >>> integrated_gradients(model, images, target=[3, 1], integrated_grad_nr_iter=5).shape
    torch.Size([2, 16, 16])
    """
    return integrated_gradients_by_channel(model, images, target, options, **changes).sum(dim=1)


def integrated_gradients_with_gap(model, images, target=None, options=Options()):
    """(maps [B, h, w], completeness gap [B]): sum of the map - (S_y(x) - S_y(x')), 0 for an exact integral."""
    classes = predictions(model, images, options=options) if target is None else target  # same class at both ends
    maps = integrated_gradients(model, images, classes, options)
    rise = target_scores(model, images, classes, options) - target_scores(
        model, baseline_of(images, options), classes, options
    )
    return maps, maps.sum(dim=(1, 2)) - rise


@explainer
def gradient_shap(model, images, target=None, options=Options()):
    """mean_i (x_i - x') dS_y/dx(x' + u_i (x_i - x')), u_i uniform in [0, 1], summed over channels, signed: GradientSHAP
    (Lundberg and Lee, NeurIPS 2017; expected gradients, Erion et al., 2021).

    num_samples (50) points; x_i is x plus Gaussian noise of deviation std (0); x' is options.baseline.

    >>> gradient_shap(model, images, target=[3, 1], num_samples=5).shape
    torch.Size([2, 16, 16])
    """
    b = len(images)
    n = options.num_samples or SHAP_SAMPLES
    target = predicted(model, images, target)
    start = baseline_of(images, options)
    streams = noise_streams(images, options)
    total = 0
    for rows in chunks(n, max(1, options.batch_size // b), options, 'random points'):
        ways = []
        points = []
        for _ in range(rows.stop - rows.start):
            noise = standard_normal(images.shape[1:], streams, images) if options.std else 0
            ways.append(images + (options.std or 0) * noise - start)
            points.append(start + uniform((1, 1, 1), streams, images) * ways[-1])
        groups = repeated(groups_of(images, options), b, len(points))
        gradients = image_gradients(model, torch.cat(points), target.repeat(len(points)), groups)[0]
        shares = (torch.cat(ways) * gradients).sum(dim=1)  # [m B, h, w]
        total = total + shares.view(len(points), *shares[:b].shape).float().sum(dim=0)
    return (total / n).to(images.dtype)


@explainer
def target_scores(model, images, target=None, options=Options()):
    """The explained scalar S_y(x) [B] of the target class."""
    with torch.no_grad():
        return chosen(scores_of(model, images), target)[0]


@explainer
def predictions(model, images, target=None, options=Options()):
    """The predicted class of each image, a LongTensor [B]; ignores `target`."""
    return predicted(model, images, None)


class _ReLU(torch.autograd.Function):
    """ReLU with gradient g [x > 0], which can be differentiated again, or if switch.guided g [x > 0] [g > 0]."""

    @staticmethod
    def forward(ctx, x, switch):
        ctx.switch = switch
        ctx.save_for_backward(x > 0)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clamp(min=0) if ctx.switch.guided else gradient
        return torch.where(ctx.saved_tensors[0], gradient, 0), None


class GuidedReLUs(TorchFunctionMode):
    """Inside this context, ReLUs (modules or functions) pass only positive gradients back; modules are not modified.

    The backward pass reads `guided`, also after the context has ended: one forward pass gives the guided gradient with
    True and the plain one with False.
    """

    PLAIN = (functional.relu, torch.relu, torch.Tensor.relu)
    IN_PLACE = (torch.relu_, torch.Tensor.relu_, functional.relu_)

    def __init__(self, guided=True):
        super().__init__()
        self.guided = guided

    def __torch_function__(self, function, types, args=(), named=None):
        named = named or {}
        if function not in self.PLAIN + self.IN_PLACE:
            return function(*args, **named)
        x = args[0] if args else named['input']
        result = _ReLU.apply(x, self)
        in_place = function in self.IN_PLACE or named.get('inplace', args[1:2] == (True,))
        return x.copy_(result) if in_place else result


@explainer
def guided_gradients(model, images, target=None, options=Options()):
    """dS_y/dx [B, c, h, w], signed, with guided ReLUs (Springenberg et al., ICLR workshop 2015)."""
    with torch.compiler.set_stance('force_eager'), GuidedReLUs():  # compiled code has no ReLU calls
        return image_gradients(model, images, target, groups_of(images, options))[0]


def guided_backprop(model, images, target=None, options=Options(), **changes):
    """max_c |g_c| of guided_gradients, like the other gradient maps: [B, h, w].

    >>> guided_backprop(model, images, target=[3, 1]).shape
    torch.Size([2, 16, 16])
    """
    return strength(guided_gradients(model, images, target, options, **changes))
