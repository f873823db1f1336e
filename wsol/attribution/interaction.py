"""Interactions between locations by second derivatives. Symbols as in cam_family.py.

Errors: see common.explainer, common.chosen and layers.find_layers.
"""

import torch
from torch.nn import functional

from ..errors import UserError
from .cam_family import hessian_product
from .common import Options, explainer
from .layers import find_layers, layer_gradients
from .postprocessing import fuse


def interaction_sums(A, G):
    """Row sums of A H A: each location's total interaction with all locations, [B, H, W]."""
    a = A.detach()
    return (a * hessian_product(A, G, a)).sum(dim=1)  # [B, H, W]


def strongest_location(A, G):
    """The location z0 of each image with the strongest interactions by interaction_sums, LongTensor [B].

    If the score is homogeneous in A (LFI-CAM: scaling all features changes nothing), all sums are 0 up to rounding
    errors. Such an image gets the location with the largest absolute first-order share. The scale of the rounding
    errors comes from a product without this cancellation: H A with the sign of every second location flipped.
    """
    a = A.detach()
    sums = interaction_sums(A, G).abs().flatten(1)  # [B, HW]
    signs = torch.ones_like(a[:, 0]).flatten(1)
    signs[:, ::2] = -1
    signs = signs.view_as(a[:, 0])[:, None]  # [B, 1, H, W]
    size = (a * hessian_product(A, G, a * signs)).abs().sum(dim=1).flatten(1)  # [B, HW]
    noise = sums.amax(dim=1) <= torch.finfo(a.dtype).eps ** 0.5 * size.amax(dim=1)  # [B]
    shares = (a * G.detach()).sum(dim=1).abs().flatten(1)  # [B, HW]
    return torch.where(noise, shares.argmax(dim=1), sums.argmax(dim=1))


def interaction_row(A, G, z0):
    """Row z0 of A H A: sum_kl A_k(z) H_kl(z, z0) A_l(z0) for every z, [B, H, W]; z0: LongTensor [B] in 0..HW-1."""
    a = A.detach()
    height, width = a.shape[2:]
    at_z0 = functional.one_hot(z0, height * width).view(-1, 1, height, width).to(a)  # [B, 1, H, W]
    return (a * hessian_product(A, G, a * at_z0)).sum(dim=1)  # [B, H, W]


def _cell_number(at, grid, size):
    """Index on a grid (h, w) of the cell that contains the centre of cell `at` of a map of size (H, W)."""
    row, column = ((2 * n + 1) * side // (2 * whole) for n, side, whole in zip(at, grid, size))
    return row * grid[1] + column


@explainer
def taylor_interaction(model, images, target=None, options=Options()):
    """sum_kl A_k(z) H_kl(z, z0) A_l(z0): the second-order interaction of every location z with one location z0, signed.

    H_kl(z, z0) = d^2 S_y / dA_k(z) dA_l(z0). Positive if z and z0 together raise the score by more than the sum of
    both, negative if one makes the other redundant; cell z0 contains the interactions among its own channels. 0
    everywhere if S_y is linear in A, as CAM's logit is in F. z0 is options.at, or else per image the location with the
    strongest interactions: the largest absolute row sum of A H A, sum_k A_k(z0) (H A)_k(z0) (LFI-CAM: the largest
    first-order share; see strongest_location). Source: Taylor-CAM (Lerman et al., ICCV 2021, arXiv 2006.08601),
    interactions of locations by cross derivatives. The authors' code sums H_kl over one location's channels without
    their activations, squares, and adds both orders of the pair; here both activations are factors, so the value is the
    pair's term of the Taylor expansion and keeps its sign.

    >>> taylor_interaction(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    layers = find_layers(model, options.target_layer, images)
    activations, gradients = layer_gradients(model, images, layers, target, create_graph=True)
    height, width = size = [max(A.shape[d] for A in activations) for d in (2, 3)]  # of the map
    at = options.at
    if at and not (at[0] < height and at[1] < width):
        raise UserError(
            f'at={at[0]},{at[1]} is outside the map: give a row from 0 to {height - 1}, a column from 0 to {width - 1}'
        )
    maps = []
    for A, G in zip(activations, gradients):
        if at:
            z0 = torch.full((len(A),), _cell_number(at, A.shape[2:], size), device=A.device)  # [B]
        else:
            z0 = strongest_location(A, G)
        maps.append(interaction_row(A, G, z0))
    return fuse(maps)
