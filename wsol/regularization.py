"""Interpretable gradients: training pulls the input gradient towards its guided version (Figueroa et al., 2024, arXiv
2404.15024).

    L      = L_C + lambda mean_i E(d_i, g_i)
    L_C      mean class loss of the images x_i
    d_i      gradient of the class loss at x_i      [3, h, w]
    g_i      the same by guided backpropagation     [3, h, w], detached
    E        an error in ERRORS

d_i and g_i differentiate the sum of the image losses, so E depends neither on the batch size n nor on the number of
processes. The paper differentiates their mean L_C, which makes d_i and g_i n times smaller: no change for the cosine, n
times smaller for l1, n^2 times smaller for l2. The paper's lambda at batch size n is therefore lambda / n here for l1
and lambda / n^2 for l2.
"""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .attribution.gradient import GuidedReLUs
from .errors import UserError


def _unit(gradients):
    """Rows [B, n] scaled to length 1; zero rows stay 0.

    Dividing by the largest entry first keeps the squares of tiny gradients from underflowing. Detached: it does not
    change the direction.
    """
    top = gradients.detach().abs().amax(dim=1, keepdim=True)
    rows = gradients / (top + (top == 0).to(top.dtype))
    length = rows.norm(dim=1, keepdim=True)
    return rows / (length + (length == 0).to(length.dtype))


def cosine(gradients, guided):
    """1 - cosine similarity of each row, in [0, 2]: [B] from [B, n]; 1 for a zero row."""
    return 1 - (_unit(gradients) * _unit(guided)).sum(dim=1)


def l1(gradients, guided):
    """Mean absolute difference of each row: [B] from [B, n]."""
    return (gradients - guided).abs().mean(dim=1)


def l2(gradients, guided):
    """Mean squared difference of each row: [B] from [B, n]."""
    return (gradients - guided).square().mean(dim=1)


ERRORS = {'cosine': cosine, 'l1': l1, 'l2': l2}


def gradient_regularization(model, images, labels, error='cosine'):
    """(class losses [B], input gradient errors [B], p(y|x) [B, C]) from one forward and two backward passes.

    model: images [B, 3, h, w] -> `Output`, a Network or a function around one, uncompiled (torch.compile and
    synchronised batch norm have no second derivative). labels: LongTensor [B]. Train with the gradient of losses.mean()
    + lambda * errors.mean(). Batch norm sees the images once; `.grad` and the training mode do not change. What the
    losses detach (the E step's p', the normaliser of p(z|x)) is detached in the errors too. Raises UserError for an
    unknown error.
    """
    if error not in ERRORS:
        raise UserError(f'unknown gradient error {error!r}: choose one of {", ".join(ERRORS)}')
    x = images.detach().requires_grad_()
    with GuidedReLUs(guided=False) as relus, sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        output = model(x.clone())  # the model may modify its input in place
        losses = output.loss(labels)
        probs = output.probs
    (gradients,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    relus.guided = True
    (guided,) = torch.autograd.grad(losses.sum(), x, retain_graph=True)
    relus.guided = False  # for the caller's backward pass
    return losses, ERRORS[error](gradients.flatten(1), guided.flatten(1)), probs
