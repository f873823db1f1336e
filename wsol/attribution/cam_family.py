"""The CAM family by gradients: maps [B, H, W] at the size of the target layer, several layers fused by maps.fuse.

    A_k(z)   activation of channel k at location z of the layer     [B, L, H, W]
    G_k(z)   dS_y / dA_k(z), S_y the explained scalar of class y    [B, L, H, W]
    w_k      weight of the channel                                  [B, L]

Errors: those of common.explainer, common.chosen and layers.find_layers.
"""

import torch

from .common import Options, chosen, explainer, noise_streams, standard_normal
from .layers import capture, find_layers, layer_gradients
from .maps import fuse

SMOOTH_SAMPLES = 4  # of Smooth Grad-CAM++, as torchcam has them
SMOOTH_STD = 0.3


def weighted(A, w):
    """sum_k w_k A_k: [B, H, W] from A [B, L, H, W] and w [B, L]."""
    return torch.einsum('blhw,bl->bhw', A, w)  # [B, H, W]


def grad_cam_weights(G):
    """w_k = mean_z G_k(z), [B, L]."""
    return G.mean(dim=(2, 3))


def grad_cam_pp_weights(A, G):
    """w_k = sum_z alpha_k(z) relu(G_k(z)), alpha = G^2 / (2 G^2 + G^3 sum_z' A_k(z')), [B, L].

    G^2 is cancelled, so nothing underflows and no epsilon is needed; alpha = 0 where the denominator is 0.
    """
    below = 2 + G * A.sum(dim=(2, 3), keepdim=True)  # [B, L, H, W]
    return torch.where(below == 0, 0, G.relu() / below).sum(dim=(2, 3))


def smooth_grad_cam_pp_weights(A, G1, G2, G3):
    """w_k = sum_z alpha_k(z) relu(G1), alpha = G2 / (2 G2 + G3 sum_z' A_k(z')), [B, L]; Gp is the mean of G^p over
    noise."""
    below = 2 * G2 + G3 * A.sum(dim=(2, 3), keepdim=True)  # [B, L, H, W]
    return torch.where(below == 0, 0, G2 / below * G1.relu()).sum(dim=(2, 3))


def principal_map(A):
    """The locations' coordinate along the first principal axis of the channels: [B, H, W] from A [B, L, H, W].

    With M [HW, L] the activations minus their mean over the locations and u, s its first left singular vector and
    value: u s, from the smaller Gram matrix M M^T. Its sign, which the axis leaves open, makes it agree with sum_k A_k.
    """
    rows = A.flatten(2).transpose(1, 2).to(torch.promote_types(A.dtype, torch.float32))  # [B, HW, L]
    M = rows - rows.mean(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(M @ M.transpose(1, 2))  # ascending
    u = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()  # [B, HW]; clamp: rounding
    agree = (u * M.sum(dim=2)).sum(dim=1, keepdim=True)
    return torch.where(agree < 0, -u, u).view(len(A), *A.shape[2:]).to(A.dtype)  # [B, H, W]


@explainer
def grad_cam(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k), w_k = mean_z G_k(z): Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2)."""
    layers = find_layers(model, options.target_layer, images)
    pairs = zip(*layer_gradients(model, images, layers, target))
    return fuse([weighted(A.detach(), grad_cam_weights(G)).relu() for A, G in pairs])


@explainer
def grad_cam_pp(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k) with grad_cam_pp_weights: Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 5 and 19)."""
    layers = find_layers(model, options.target_layer, images)
    pairs = zip(*layer_gradients(model, images, layers, target))
    return fuse([weighted(A.detach(), grad_cam_pp_weights(A.detach(), G)).relu() for A, G in pairs])


@explainer
def layer_cam(model, images, target=None, options=Options()):
    """relu(sum_k relu(G_k(z)) A_k(z)): LayerCAM (Jiang et al., TIP 2021, eq. 4 to 6), for any layer."""
    layers = find_layers(model, options.target_layer, images)
    pairs = zip(*layer_gradients(model, images, layers, target))
    return fuse([(G.relu() * A.detach()).sum(dim=1).relu() for A, G in pairs])


@explainer
def smooth_grad_cam_pp(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k) with smooth_grad_cam_pp_weights: Smooth Grad-CAM++ (Omeiza et al., 2019), A of the clean
    image.

    The mean is over num_samples (4) copies of the image with Gaussian noise of deviation std (.3). The numerator of
    alpha is the mean of G^2, as in Grad-CAM++ (the paper prints G there).
    """
    layers = find_layers(model, options.target_layer, images)
    n = options.num_samples or SMOOTH_SAMPLES
    std = SMOOTH_STD if options.std is None else options.std
    activations, scores = capture(model, images, layers)
    target = chosen(scores, target)[1]
    streams = noise_streams(images, options)
    powers = [[0, 0, 0] for _ in layers]
    for _ in range(n):
        noisy = images + std * standard_normal(images.shape[1:], streams, images)
        for means, G in zip(powers, layer_gradients(model, noisy, layers, target)[1]):
            means[:] = [mean + G**p / n for p, mean in enumerate(means, start=1)]
    return fuse([weighted(A, smooth_grad_cam_pp_weights(A, *means)).relu() for A, means in zip(activations, powers)])


@explainer
def eigen_cam(model, images, target=None, options=Options()):
    """relu(principal_map(A)): Eigen-CAM (Muhammad and Yeasin, IJCNN 2020), centred; the same map for every class."""
    layers = find_layers(model, options.target_layer, images)
    activations, scores = capture(model, images, layers)
    chosen(scores, target)  # a class that does not exist is an error here too
    return fuse([principal_map(A).relu() for A in activations])


@explainer
def taylor_cam(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k), w_k = mean_z (G - H A / 2)_k(z): Grad-CAM with second-order interactions.

    H [LHW, LHW] is the Hessian of S_y in A, met only as the product H A. Expanding S_y around A to second order and
    reading it at 0 gives S_y(A) - S_y(0) = sum A (G - H A / 2): each activation's first-order share minus half of its
    interactions with all others (Shapley values of that expansion). Where S_y is linear in A it is Grad-CAM.
    Source: the Taylor reading of Grad-CAM; the same weights as ShapleyCAM (arXiv 2501.06261).
    """
    layers = find_layers(model, options.target_layer, images)
    activations, gradients = layer_gradients(model, images, layers, target, create_graph=True)
    maps = []
    for A, G in zip(activations, gradients):
        product = None
        if G.requires_grad:  # else S_y is linear in A and H is 0
            product = torch.autograd.grad((G * A.detach()).sum(), A, retain_graph=True, allow_unused=True)[0]
        w = grad_cam_weights(G.detach() if product is None else (G - product / 2).detach())
        maps.append(weighted(A.detach(), w).relu())
    return fuse(maps)
