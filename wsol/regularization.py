"""Interpretable gradients: training that draws the input gradient to its guided version (Figueroa et al., 2024, arXiv
2404.15024).

    L      = L_C + lambda mean_i E(d_i, g_i)
    L_C      the mean of the class losses of the images x_i
    d_i      gradient of the class loss in x_i      [3, h, w]
    g_i      the same by guided back-propagation    [3, h, w], a constant: no gradient flows through it
    E        an error of ERRORS

d_i and g_i are gradients of the sum of the images' losses, so that the scale of E depends neither on the size n of the
batch nor on the number of processes that share it. The paper differentiates their mean, L_C itself, which makes d_i and
g_i n times smaller. That is nothing to the cosine, which sees directions; it makes l1 n times and l2 n^2 times smaller.
The paper's lambda with batches of n is therefore lambda / n here for l1, and lambda / n^2 for l2.
"""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .attribution.gradient import GuidedReLUs
from .errors import UserError


def _unit(gradients):
    """Rows [B, n] of length 1, or 0 where a row is 0.

    The division by the largest entry, a constant that a direction does not depend on, keeps squares of tiny gradients
    above 0.
    """
    top = gradients.detach().abs().amax(dim=1, keepdim=True)
    rows = gradients / (top + (top == 0).to(top.dtype))
    length = rows.norm(dim=1, keepdim=True)
    return rows / (length + (length == 0).to(length.dtype))


def cosine(gradients, guided):
    """1 - cosine similarity of each row, in [0, 2]: [B] from [B, n]; 1 where a row is 0."""
    return 1 - (_unit(gradients) * _unit(guided)).sum(dim=1)


def l1(gradients, guided):
    """Mean absolute difference of each row: [B] from [B, n]."""
    return (gradients - guided).abs().mean(dim=1)


def l2(gradients, guided):
    """Mean squared difference of each row: [B] from [B, n]."""
    return (gradients - guided).square().mean(dim=1)


ERRORS = {'cosine': cosine, 'l1': l1, 'l2': l2}


def gradient_regularization(model, images, labels, error='cosine'):
    """(class losses [B], errors of the input gradients [B], p(y|x) [B, C]) from one forward and two backward passes.

    model: images [B, 3, h, w] -> `Output`, a Network or a function around one, not compiled (torch.compile and
    synchronised batch norm cannot be differentiated twice). labels: LongTensor [B]. Train the weights by the backward
    pass of losses.mean() + lambda * errors.mean(). Batch norm sees the images once, no `.grad` is touched and the mode
    stays. The constants of the losses (the E step's p' and the normaliser of p(z|x)) are constants of the errors too.
    An unknown error is a UserError.
    """
    if error not in ERRORS:
        raise UserError(f'unknown gradient error {error!r}: choose one of {", ".join(ERRORS)}')
    x = images.detach().requires_grad_()
    with GuidedReLUs(guided=False) as relus, sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        output = model(x.clone())  # a model may work in place on what it is given
        losses = output.loss(labels)
        probs = output.probs
    (gradients,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    relus.guided = True
    (guided,) = torch.autograd.grad(losses.sum(), x, retain_graph=True)
    relus.guided = False  # for the backward pass that trains the weights
    return losses, ERRORS[error](gradients.flatten(1), guided.flatten(1)), probs
