"""Gradient-based CAM family: maps [B, H, W] at the target layer's size; several layers are fused by
postprocessing.fuse.

    A_k(z)   activation of channel k at location z of the layer     [B, L, H, W]
    G_k(z)   dS_y / dA_k(z), S_y the explained scalar of class y    [B, L, H, W]
    w_k      weight of the channel                                  [B, L]
    H        Hessian of S_y in A, used only as a product H v        [B, L H W, L H W]

Errors: see common.explainer, common.chosen and layers.find_layers.
"""

import torch

from .common import Options, chosen, explainer, groups_of, noise_streams, standard_normal
from .layers import capture, find_layers, layer_gradients, stage_layers
from .postprocessing import aligned, fuse
from .scalars import check_classes

SMOOTH_SAMPLES = 4  # Smooth Grad-CAM++, torchcam's values
SMOOTH_STD = 0.3
FINER_CLASSES = 3  # Finer-CAM, as in its paper and torchcam
FINER_GAMMA = 0.6
REFINED_STAGES = 3  # RefineCAM's default number of layers


def at_least_float32(values):
    """Values of float16 as float32: sums of activations overflow in float16, powers of gradients underflow."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def weighted(A, w):
    """sum_k w_k A_k: [B, H, W] from A [B, L, H, W] and w [B, L]."""
    return torch.einsum('blhw,bl->bhw', A, w)  # [B, H, W]


def grad_cam_weights(G):
    """w_k = mean_z G_k(z), [B, L]."""
    return G.mean(dim=(2, 3))


def grad_cam_pp_weights(A, G):
    """w_k = sum_z alpha_k(z) relu(G_k(z)), alpha = G^2 / (2 G^2 + G^3 sum_z' A_k(z')), [B, L].

    G^2 cancels, so nothing underflows and no epsilon is needed; alpha = 0 if the denominator is 0.
    """
    below = 2 + G * A.sum(dim=(2, 3), keepdim=True)  # [B, L, H, W]
    return torch.where(below == 0, 0, G.relu() / below).sum(dim=(2, 3))


def smooth_grad_cam_pp_weights(A, G1, G2, G3):
    """w_k = sum_z alpha_k(z) relu(G1), alpha = G2 / (2 G2 + G3 sum_z' A_k(z')), [B, L]; Gp: mean of the copies' G^p."""
    below = 2 * G2 + G3 * A.sum(dim=(2, 3), keepdim=True)  # [B, L, H, W]
    return torch.where(below == 0, 0, G2 / below * G1.relu()).sum(dim=(2, 3))


def principal_map(A):
    """Coordinate of each location along the first principal axis of the channels: [B, H, W] from A [B, L, H, W].

    With M [HW, L] the activations minus their mean over locations and u, s its first left singular vector and value: u
    s, from the smaller Gram matrix, M M^T or M^T M. The sign, which the axis leaves open, is chosen to agree with sum_k
    A_k.
    """
    rows = at_least_float32(A).flatten(2).transpose(1, 2)  # [B, HW, L]
    M = rows - rows.mean(dim=1, keepdim=True)
    if M.shape[1] <= M.shape[2]:
        values, vectors = torch.linalg.eigh(M @ M.transpose(1, 2))  # ascending
        u = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()  # [B, HW]; clamp: rounding errors
    else:
        u = (M @ torch.linalg.eigh(M.transpose(1, 2) @ M)[1][:, :, -1:]).squeeze(2)  # [B, HW]
    agree = (u * M.sum(dim=2)).sum(dim=1, keepdim=True)
    return torch.where(agree < 0, -u, u).view(len(A), *A.shape[2:]).to(A.dtype)  # [B, H, W]


def _layer_maps(combine, model, images, layers, target, **more):
    """relu(combine(A, G)) [B, H, W] per layer, with activations A and G = dS_y/dA [B, L, H, W]."""
    pairs = zip(*layer_gradients(model, images, layers, target, **more))
    return [combine(at_least_float32(A.detach()), at_least_float32(G)).relu().to(A.dtype) for A, G in pairs]


def _fused(combine, model, images, target, options, **more):
    """`_layer_maps` of the target layers fused to one map [B, H, W]."""
    layers = find_layers(model, options.target_layer, images)
    groups = groups_of(images, options)
    return fuse(_layer_maps(combine, model, images, layers, target, groups=groups, **more))


def _grad_cam_of(A, G):
    """sum_k w_k A_k with grad_cam_weights."""
    return weighted(A, grad_cam_weights(G))


def _grad_cam_pp_of(A, G):
    """sum_k w_k A_k with grad_cam_pp_weights."""
    return weighted(A, grad_cam_pp_weights(A, G))


@explainer
def grad_cam(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k), w_k = mean_z G_k(z): Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2).

    >>> grad_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    return _fused(_grad_cam_of, model, images, target, options)


@explainer
def grad_cam_pp(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k) with grad_cam_pp_weights: Grad-CAM++ (Chattopadhay et al., WACV 2018, eq. 5 and 19).

    >>> grad_cam_pp(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    return _fused(_grad_cam_pp_of, model, images, target, options)


@explainer
def layer_cam(model, images, target=None, options=Options()):
    """relu(sum_k relu(G_k(z)) A_k(z)): LayerCAM (Jiang et al., TIP 2021, eq. 4 to 6), for any layer.

    >>> layer_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    return _fused(lambda A, G: (G.relu() * A).sum(dim=1), model, images, target, options)


@explainer
def hires_cam(model, images, target=None, options=Options()):
    """relu(sum_k G_k(z) A_k(z)): HiResCAM (Draelos and Carin, 2020, arXiv 2011.08891); gradients are not averaged.

    >>> hires_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    return _fused(lambda A, G: (G * A).sum(dim=1), model, images, target, options)


def against_similar(scores, classes):
    """In column y of each target class: S_y - FINER_GAMMA (mean score of the FINER_CLASSES other classes closest to
    S_y).

    scores [D, C]. With a single class, the scores themselves.
    """
    scalars = scores.clone()
    count = min(FINER_CLASSES, scores.shape[1] - 1)
    for y in classes.unique().tolist() if count else ():
        distances = (scores - scores[:, y : y + 1]).detach().abs()
        distances[:, y] = torch.inf
        others = distances.topk(count, dim=1, largest=False).indices  # [D, count]
        scalars[:, y] = scores[:, y] - FINER_GAMMA * scores.gather(1, others).mean(dim=1)
    return scalars


@explainer
def finer_cam(model, images, target=None, options=Options()):
    """Grad-CAM of S_y - g mean_d S_d, d the three classes with scores closest to S_y, g = .6: Finer-CAM (Zhang et al.,
    CVPR 2025), which shows what distinguishes the class from similar ones.

    torchcam uses the same mean; pytorch-grad-cam weights the classes by their probability, with g = 1. To compare with
    one class of your choice, use any map with `contrast`.

    >>> finer_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    check_classes(model, 'finer_cam')
    return _fused(_grad_cam_of, model, images, target, options, scalars=against_similar)


def xgrad_cam_weights(A, G):
    """w_k = sum_z G_k(z) A_k(z) / sum_z A_k(z), [B, L]; 0 if the denominator is 0."""
    below = A.sum(dim=(2, 3))
    return torch.where(below == 0, 0, (G * A).sum(dim=(2, 3)) / below)


@explainer
def xgrad_cam(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k) with xgrad_cam_weights: XGrad-CAM (Fu et al., BMVC 2020, eq. 8).

    >>> xgrad_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    return _fused(lambda A, G: weighted(A, xgrad_cam_weights(A, G)), model, images, target, options)


@explainer
def smooth_grad_cam_pp(model, images, target=None, options=Options()):
    """Grad-CAM++ averaged over num_samples (4) copies of the image with Gaussian noise of deviation std (.3).

    smooth_average selects what is averaged. 'derivatives', the default, is Smooth Grad-CAM++ (Omeiza et al., 2019):
    relu(sum_k w_k A_k) with smooth_grad_cam_pp_weights and A of the clean image. The numerator of alpha is the mean of
    G^2, as in Grad-CAM++ (the paper prints G). 'maps' averages the maps M(x + noise) of grad_cam_pp, each with the
    weights and A of its own copy, as in SmoothGrad (Smilkov et al., 2017). torchcam (0.5) averages the derivatives G^2
    and G^3 too, but uses relu(G) and A of the last copy.

    >>> smooth_grad_cam_pp(model, images, target=[3, 1], target_layer='conv2', num_samples=2).shape
    torch.Size([2, 8, 8])
    """
    layers = find_layers(model, options.target_layer, images)
    n = options.num_samples or SMOOTH_SAMPLES
    std = SMOOTH_STD if options.std is None else options.std
    activations, scores = capture(model, images, layers, groups_of(images, options))
    target = chosen(scores, target)[1]
    streams = noise_streams(images, options)
    groups = groups_of(images, options)
    copies = (images + std * standard_normal(images.shape[1:], streams, images) for _ in range(n))
    if options.smooth_average == 'maps':
        maps = (_layer_maps(_grad_cam_pp_of, model, noisy, layers, target, groups=groups) for noisy in copies)
        return sum(fuse(one) / n for one in maps)
    powers = [[0, 0, 0] for _ in layers]
    for noisy in copies:
        for means, G in zip(powers, layer_gradients(model, noisy, layers, target, groups)[1]):
            means[:] = [mean + at_least_float32(G) ** p / n for p, mean in enumerate(means, start=1)]
    activations = [at_least_float32(A) for A in activations]
    maps = [weighted(A, smooth_grad_cam_pp_weights(A, *means)).relu() for A, means in zip(activations, powers)]
    return fuse([one.to(images.dtype) for one in maps])


@explainer
def eigen_cam(model, images, target=None, options=Options()):
    """relu(principal_map(A)): Eigen-CAM (Muhammad and Yeasin, IJCNN 2020), centred; independent of the class.

    >>> eigen_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    layers = find_layers(model, options.target_layer, images)
    activations, scores = capture(model, images, layers, groups_of(images, options))
    chosen(scores, target)  # raises for a class that does not exist
    return fuse([principal_map(A).relu() for A in activations])


@explainer
def eigen_grad_cam(model, images, target=None, options=Options()):
    """relu(principal_map(G A)): Eigen-CAM of activations times gradients, which depends on the class
    (pytorch-grad-cam).

    >>> eigen_grad_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    return _fused(lambda A, G: principal_map(G * A), model, images, target, options)


def refined_layers(model, target_layer, images):
    """Layers of `refine_cam`: target_layer, or by default the last layers of the three coarsest map sizes."""
    if target_layer is None:
        return stage_layers(model, images, REFINED_STAGES)
    return find_layers(model, target_layer, images)


@explainer
def refine_cam(model, images, target=None, options=Options()):
    """prod_l m_l, m_l the map of grad_cam_pp at layer l, scaled to [0, 1] and resized to the largest: RefineCAM
    (Domeniconi et al., 2026, arXiv 2605.14641).

    Default layers: the last ones of the three coarsest map sizes (layers.stage_layers).

    >>> refine_cam(model, images, target=[3, 1]).shape
    torch.Size([2, 8, 8])
    """
    layers = refined_layers(model, options.target_layer, images)
    maps = _layer_maps(_grad_cam_pp_of, model, images, layers, target, groups=groups_of(images, options))
    return aligned(maps).prod(dim=0)  # [B, H, W]


def hessian_product(A, G, v):
    """H v [B, L, H, W] per image, by one more backward pass through G; 0 if S_y is linear in A.

    G: with its graph to A, from `layer_gradients` with create_graph; v [B, L, H, W] is a constant.
    """
    product = None
    if G.requires_grad:
        product = torch.autograd.grad((G * v).sum(), A, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(v) if product is None else product.detach()


@explainer
def taylor_cam(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k), w_k = mean_z (G - H A / 2)_k(z): Grad-CAM with second-order interactions.

    Expanding S_y around A to second order and evaluating at 0 gives S_y(A) - S_y(0) = sum A (G - H A / 2): each
    activation's first-order share minus half of its interactions with all others (Shapley values of that expansion).
    Equals Grad-CAM if S_y is linear in A. Sources: Taylor-CAM (Lerman et al., ICCV 2021, arXiv 2006.08601) introduces
    the name and Grad-CAM with second derivatives, but its maps are of pairs of locations: see taylor_interaction.
    ShapleyCAM (arXiv 2501.06261) has the same channel weights.

    >>> taylor_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    layers = find_layers(model, options.target_layer, images)
    maps = []
    for A, G in zip(*layer_gradients(model, images, layers, target, create_graph=True)):
        a = A.detach()
        w = grad_cam_weights(G.detach() - hessian_product(A, G, a) / 2)
        maps.append(weighted(a, w).relu())
    return fuse(maps)
