"""Perturbation methods at a layer: the score's change when a channel masks the image or is removed.

Methods that perturb only the image are in masking.py. A_k(z) [B, L, H, W] is the target layer's activation, S_y the
explained scalar of class y, w_k [B, L] a channel's weight. options.batch_size bounds the number of masked images or
ablated activations in memory. Errors: see common.explainer, common.chosen and layers.find_layers.
"""

import torch
from torchvision.transforms import functional

from ..network import Network, Output
from ..scaling import min_max
from .cam_family import grad_cam_weights, weighted
from .common import Options, chosen, chunks, explainer, groups_of, noise_streams, predicted, scores_of, standard_normal
from .layers import capture, counted, find_layers, last_feature_layer, layer_gradients, scores_with
from .postprocessing import fuse, upsample

SS_SAMPLES = 35  # SS-CAM, torchcam's values
SS_STD = 2.0
IS_STEPS = 10  # IS-CAM, torchcam's value
GROUPS = 32  # Group-CAM's groups of channels; this and the next three as in its paper and published code
GROUP_QUANTILE = 0.7  # a group's map is 0 below it
GROUP_BLUR = 51  # px, largest size of the Gaussian kernel
GROUP_SIGMA = 50.0  # px


def masked_scores(model, images, A, target, options, streams=None, std=0.0, factor=1.0):
    """S_y(c M_k x) [B, L], M_k = A_k resized to the image and scaled to [0, 1], plus noise of deviation `std`; c is
    `factor`.

    Several classes of one image share the masked passes unless there is noise.
    """
    b, channels = A.shape[:2]
    firsts, owner = ([*range(b)], None) if std else groups_of(images, options)
    classes, column = target.unique(return_inverse=True)  # [K], [B]
    maps = A[firsts].flatten(0, 1)  # [D L, H, W], D different images
    scores = []
    for rows in chunks(len(firsts) * channels, options.batch_size, options, 'masked images'):
        number = torch.arange(rows.start, rows.stop, device=A.device) // channels  # [n]: image of each row
        masks = min_max(upsample(maps[rows], images.shape[2:]))  # [n, h, w]
        if std:
            masks = masks + std * standard_normal(masks.shape[1:], [streams[i] for i in number.tolist()], masks)
        masked = factor * masks[:, None] * images[firsts][number]  # [n, c, h, w]
        scores.append(scores_of(model, masked)[:, classes])
    scores = torch.cat(scores).view(len(firsts), channels, -1)  # [D, L, K]
    return scores[torch.arange(b, device=A.device) if owner is None else owner, :, column]  # [B, L]


def softmax_weights(scores):
    """w_k = softmax over the channels of the scores [B, L]; unaffected by a baseline score common to all k."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(dim=1).to(scores.dtype)


def _masked_map(model, images, target, options, rounds):
    """relu(sum_k w_k A_k), w the softmax of the mean of masked_scores over `rounds`, dicts of its last arguments."""
    layers = find_layers(model, options.target_layer, images)
    with torch.no_grad():
        activations, scores = capture(model, images, layers, groups_of(images, options))
        target = chosen(scores, target)[1]
        maps = []
        for A in activations:
            total = sum(masked_scores(model, images, A, target, options, **one) for one in rounds)
            maps.append(weighted(A, softmax_weights(total / len(rounds))).relu())
        return fuse(maps)


@explainer
def score_cam(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k), w = softmax_k S_y(M_k x), M_k = min-max scaled A_k: Score-CAM (Wang et al., CVPRW 2020).

    >>> score_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    return _masked_map(model, images, target, options, [{}])


@explainer
def ss_cam(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k), w = softmax_k mean_i S_y((M_k + noise_i) x): SS-CAM (Wang et al., 2020), noise on the mask.

    num_samples (35) draws of Gaussian noise of deviation std (2); M_k as in score_cam.

    >>> ss_cam(model, images, target=[3, 1], target_layer='conv2', num_samples=2).shape
    torch.Size([2, 8, 8])
    """
    noise = {'streams': noise_streams(images, options), 'std': SS_STD if options.std is None else options.std}
    return _masked_map(model, images, target, options, [noise] * (options.num_samples or SS_SAMPLES))


@explainer
def is_cam(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k), w = softmax_k (1/N) sum_{i=1..N} S_y(c_i M_k x), c_i = (1 + ... + i) / N: IS-CAM (Naidu et
    al., 2020, arXiv 2010.03023) with N = num_samples (10) steps; M_k as in score_cam.

    The steps are torchcam's (0.5): each adds i/N to the sum so far, so the last images are brighter than x.

    >>> is_cam(model, images, target=[3, 1], target_layer='conv2', num_samples=2).shape
    torch.Size([2, 8, 8])
    """
    n = options.num_samples or IS_STEPS
    return _masked_map(model, images, target, options, [{'factor': i * (i + 1) / (2 * n)} for i in range(1, n + 1)])


def clusters(A, count):
    """Cluster number per channel, LongTensor [L] in 0..count-1, for one image's A [L, H, W]: Ward's method on the
    channels as vectors of H W values."""
    from scipy.cluster.hierarchy import fcluster, ward  # imported here: only this map needs SciPy
    from scipy.spatial.distance import squareform

    if len(A) <= count:
        return torch.arange(len(A), device=A.device)
    rows = A.flatten(1).double()
    apart = torch.cdist(rows, rows, compute_mode='use_mm_for_euclid_dist')  # [L, L], three times faster than SciPy
    tree = ward(squareform(apart.fill_diagonal_(0).cpu().numpy(), checks=False))
    return torch.from_numpy(fcluster(tree, count, 'maxclust')).long().to(A.device) - 1


def group_masks(A, w):
    """Masks [G, H, W] of one image from A [L, H, W] and w [L]: relu of the sum of w_k A_k over a cluster of channels, 0
    up to its GROUP_QUANTILE; G = min(GROUPS, L)."""
    scored = w[:, None, None] * A  # [L, H, W]
    groups = scored.new_zeros(min(GROUPS, len(A)), *A.shape[1:]).index_add(0, clusters(scored, GROUPS), scored).relu()
    cut = groups.flatten(1).float().quantile(GROUP_QUANTILE, dim=1)[:, None, None]
    return torch.where(groups > cut, groups, 0)


def _group_map(model, images, masks, target, options):
    """relu(sum_g (S_y(M_g x + (1 - M_g) b) - S_y(b)) M_g) [B, h, w], b the blurred images, from masks [B, G, H, W]."""
    size = min(GROUP_BLUR, 2 * min(images.shape[2:]) - 1)
    blurred = functional.gaussian_blur(images.float(), size, GROUP_SIGMA).to(images)  # minutes in float16 on a CPU
    base = chosen(scores_of(model, blurred), target)[0]
    groups = masks.shape[1]
    total = images.new_zeros(len(images), *images.shape[2:])
    for rows in chunks(masks.shape[0] * groups, options.batch_size, options, 'groups of channels'):
        image = torch.arange(rows.start, rows.stop, device=masks.device) // groups  # [n]
        M = min_max(upsample(masks.flatten(0, 1)[rows], images.shape[2:]))  # [n, h, w]
        mixed = M[:, None] * images[image] + (1 - M[:, None]) * blurred[image]  # [n, c, h, w]
        gain = chosen(scores_of(model, mixed), target[image])[0] - base[image]
        total.index_add_(0, image, gain[:, None, None] * M)
    return total.relu()


@explainer
def group_cam(model, images, target=None, options=Options()):
    """relu(sum_g s_g M_g) at image size, M_g the map of a cluster of channels, s_g its score gain: Group-CAM (Zhang et
    al., 2021, arXiv 2103.13859), a Score-CAM with 32 masks.

    M_g is group_masks resized and scaled to [0, 1], with Grad-CAM's w; s_g = S_y(M_g x + (1 - M_g) b) - S_y(b), b the
    blurred image. The authors use p(y|x) as S_y and k-means clusters; Ward's method needs no random initialisation.

    >>> group_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 16, 16])
    """
    layers = find_layers(model, options.target_layer, images)
    target = predicted(model, images, target)
    maps = []
    for A, G in zip(*layer_gradients(model, images, layers, target, groups_of(images, options))):
        A = A.detach()
        with torch.no_grad():
            masks = torch.stack([group_masks(*pair) for pair in zip(A, grad_cam_weights(G))])  # [B, G, H, W]
            maps.append(_group_map(model, images, masks, target, options))
    return fuse(maps)


def without_channels(A, options):
    """Yields (image of each row [n], channel of each row [n]) over all B x L pairs, batch_size at a time."""
    b, channels = A.shape[:2]
    for rows in chunks(b * channels, options.batch_size, options, 'ablated channels'):
        row = torch.arange(rows.start, rows.stop, device=A.device)
        yield row // channels, row % channels


def ablated_scores(model, images, layer, A, target, options, call=1):
    """S_y without channel k of the layer's `call`-th output, for every k: [B, L], by rerunning the layers above."""
    scores = []
    for image, channel in without_channels(A, options):
        rows = A[image]  # [n, L, H, W], a copy
        rows[torch.arange(len(rows), device=A.device), channel] = 0
        scores.append(chosen(scores_with(model, images[image], layer, rows, call), target[image])[0])
    return torch.cat(scores).view(A.shape[:2])


def ablated_head_scores(model, A, target, options):
    """`ablated_scores` at F for this project's ungated networks, without rerunning convolutions.

    f and the attention before its ReLU are linear in F, so channel k's contribution is subtracted: f - W_k F_k. If the
    score is linear too (CAM's logit), no loop is needed: S_y - W_yk mean_z F_k.
    """
    weight = model.conv_last.weight.flatten(1)  # [C, L]
    if model.head.linear:
        score = chosen(model.forward_head(A).log_score, target)[0]
        return score[:, None] - weight[target] * A.mean(dim=(2, 3))  # [B, L]
    conv, relu = model.attention
    cue_weight = conv.weight.flatten()  # [L]
    f = model.conv_last(A)  # [B, C, H, W], [B, 1, H, W]
    a = conv(A)
    scores = []
    for image, channel in without_channels(A, options):
        F_k = A[image, channel][:, None]  # [n, 1, H, W]
        f_rest = f[image] - weight[:, channel].t()[:, :, None, None] * F_k  # [n, C, H, W]
        h_rest = relu(a[image] - cue_weight[channel][:, None, None, None] * F_k)  # [n, 1, H, W]
        scores.append(chosen(Output(f_rest, h_rest, model.head).log_score, target[image])[0])
    return torch.cat(scores).view(A.shape[:2])


def drops(score, ablated):
    """w_k = (S - S_k) / |S|, [B, L] from S [B] and S_k [B, L]: positive if removing the channel lowers the score.

    The paper divides by S, a positive logit; |S| keeps the sign for negative scores such as log p. S = 0: divides by 1.
    """
    size = score.abs() + (score == 0).to(score.dtype)
    return (score[:, None] - ablated) / size[:, None]


@explainer
def ablation_cam(model, images, target=None, options=Options()):
    """relu(sum_k w_k A_k), w_k = (S_y - S_y without A_k) / |S_y|: Ablation-CAM (Desai and Ramaswamy, WACV 2020).

    >>> ablation_cam(model, images, target=[3, 1], target_layer='conv2').shape
    torch.Size([2, 8, 8])
    """
    layers = find_layers(model, options.target_layer, images)
    maps = []
    with torch.no_grad():
        with counted(layers) as calls:  # A is the output of a layer's last call
            activations, scores = capture(model, images, layers, groups_of(images, options))
        score, target = chosen(scores, target)
        for layer, A in zip(layers, activations):
            if isinstance(model, Network) and not model.head.gated and layer is last_feature_layer(model, images):
                ablated = ablated_head_scores(model, A, target, options)
            else:
                ablated = ablated_scores(model, images, layer, A, target, options, calls[layer])
            maps.append(weighted(A, drops(score, ablated)).relu())
        return fuse(maps)
