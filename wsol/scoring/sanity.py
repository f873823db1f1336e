"""Sanity checks of maps: dependence on the weights, robustness, fidelity, simplicity.

    randomized        networks with weights randomized from the head down (Adebayo et al., NeurIPS 2018)
    sensitivity       change of the map under a small change of the image (Yeh et al., NeurIPS 2019)
    infidelity        error in predicting the score drop when a square is removed (Yeh et al., NeurIPS 2019)
    gini              concentration of the map on few pixels (Chalasani et al., ICML 2020)
    coherency, adcc   of ADCC (Poppi et al., CVPR workshop 2021)

B maps or images, S the side of an image. Maps are arrays; a constant map has correlation 0 with any other.
"""

import copy
import math

import numpy as np
import torch

from .. import attribution

SENSITIVITY_RADIUS = 0.02  # of the uniform noise on normalised images, as in captum
INFIDELITY_SIDE = 8  # image side / side of a removed square
SSIM_WINDOW = 7  # px; this and the constants as in scikit-image
SSIM_C = 0.01**2, 0.03**2


def correlation(a, b):
    """Pearson correlation of the rows of a and b [B, N]: [B] in [-1, 1]; 0 if a row is constant or not finite."""
    a, b = (rows.astype(np.float64) - rows.mean(axis=1, keepdims=True) for rows in (a, b))
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    with np.errstate(divide='ignore', invalid='ignore'):
        found = (a * b).sum(axis=1) / size
    return np.where(np.isfinite(found), found, 0)


def rank_correlation(a, b):
    """Spearman rank correlation of maps [B, h, w]: [B] in [-1, 1], ties with their mean rank."""
    from scipy.stats import rankdata  # imported here: takes a second, and few scores need it

    return correlation(*(rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b)))


def ssim(a, b):
    """Mean structural similarity of maps [B, S, S] in [0, 1]: [B] (Wang et al., TIP 2004), windows of SSIM_WINDOW."""
    from scipy.ndimage import uniform_filter  # imported here: as rankdata

    window = [1, min(SSIM_WINDOW, *a.shape[1:]), min(SSIM_WINDOW, *a.shape[1:])]
    count = window[1] * window[2]

    def mean(maps):
        return uniform_filter(maps, window)

    a, b = a.astype(np.float64), b.astype(np.float64)
    u, v = mean(a), mean(b)
    variances = [
        (mean(one * other) - m * n) * count / (count - 1)
        for one, other, m, n in ((a, a, u, u), (b, b, v, v), (a, b, u, v))
    ]
    c, d = SSIM_C
    found = (2 * u * v + c) * (2 * variances[2] + d) / ((u**2 + v**2 + c) * (variances[0] + variances[1] + d))
    border = window[1] // 2
    return found[:, border : a.shape[1] - border, border : a.shape[2] - border].mean(axis=(1, 2))


def weight_layers(model, image):
    """Modules with weights of their own, in the order in which they run on an image [1, 3, S, S]. A module that is not
    called itself is ordered by the module that contains it."""
    order = {}
    modules = dict(model.named_modules())
    name_of = {module: name for name, module in modules.items()}

    def note(module, inputs):
        order.setdefault(name_of[module], len(order))

    handles = [module.register_forward_pre_hook(note) for module in modules.values()]
    try:
        with torch.no_grad():
            model(image.clone())
    finally:
        for handle in handles:
            handle.remove()

    def place(name):
        while name and name not in order:
            name = name.rpartition('.')[0]
        return order.get(name, 0)

    names = [name for name, module in modules.items() if any(True for _ in module.parameters(recurse=False))]
    return sorted(names, key=place)  # a stable sort


@torch.no_grad()
def _draw_weights(module, stream):
    """Randomize a module: weights He normal by fan-in, scales 1, biases 0, running statistics reset."""
    for name, weight in module.named_parameters(recurse=False):
        if weight.ndim > 1:
            noise = torch.randn(weight.shape, generator=stream) * math.sqrt(2 / weight[0].numel())
            weight.copy_(noise.to(weight))
        elif name in ('weight', 'bias'):
            weight.fill_(name == 'weight')
    if getattr(module, 'running_mean', None) is not None:
        module.reset_running_stats()


def randomized(model, image, steps, seed):
    """`steps` copies of the model with random weights in the last 1/steps, 2/steps, ... all layers: cascading
    randomization of Adebayo et al. The model is not modified; a layer's random weights are the same in all copies."""
    names = weight_layers(model, image)
    copies = []
    for step in range(1, steps + 1):
        other = copy.deepcopy(model).eval()
        for number in range(len(names) - math.ceil(len(names) * step / steps), len(names)):
            stream = torch.Generator().manual_seed(attribution.noise_seed(seed, number))
            _draw_weights(other.get_submodule(names[number]), stream)
        copies.append(other)
    return copies


def sensitivity(make, images, maps, streams, draws):
    """max over draws of |map(x + noise) - map(x)| / |map(x)|, [B], Euclidean norms; |map(x)| = 0 divides by 1.

    make(images) -> maps [B, h, w] of fixed classes; maps: of the images; streams: one torch.Generator per image.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    size = np.sqrt((flat**2).sum(axis=1))
    found = []
    for _ in range(draws):
        noise = attribution.common.uniform(images.shape[1:], streams, images)
        changed = make(images + SENSITIVITY_RADIUS * (2 * noise - 1)).reshape(flat.shape)
        found.append(np.sqrt(((changed - flat) ** 2).sum(axis=1)))
    return np.max(found, axis=0) / np.where(size == 0, 1, size)


def infidelity(drop, images, maps, streams, draws, batch_size):
    """min over c of the mean over draws of (c a - d)^2, [B]: d is the score drop when a square is removed, a the map's
    sum in it.

    The factor c (Yeh et al., section 2) makes it independent of the map's scale. drop(images, rows) -> d [n] for
    modified images, rows their indices in the batch; maps [B, S, S]: at image size; streams: one torch.Generator per
    image. The squares have 1 / INFIDELITY_SIDE of the image's side and become 0.
    """
    b, _, height, width = images.shape
    side = max(1, min(height, width) // INFIDELITY_SIDE)
    corners = torch.stack([torch.rand(draws, 2, generator=stream) for stream in streams])
    corners = (corners * torch.tensor([height - side + 1, width - side + 1])).long().view(-1, 2).tolist()  # [B n, 2]
    a = np.array([maps[i // draws, y : y + side, x : x + side].sum(dtype=float) for i, (y, x) in enumerate(corners)])
    d = []
    for rows in torch.arange(b * draws, device=images.device).split(batch_size):
        changed = images[rows // draws]  # a copy
        for one, row in zip(changed, rows.tolist()):
            y, x = corners[row]
            one[:, y : y + side, x : x + side] = 0
        d.append(drop(changed, rows // draws))
    a, d = a.reshape(b, draws), torch.cat(d).double().cpu().numpy().reshape(b, draws)
    below = (a**2).sum(axis=1)
    c = np.where(below > 0, (a * d).sum(axis=1) / np.where(below > 0, below, 1), 0)
    return ((c[:, None] * a - d) ** 2).mean(axis=1)


def gini(maps):
    """Gini index of |map| for maps [B, S, S]: [B], 0 if all pixels are equal, near 1 if few pixels hold everything."""
    values = np.sort(np.abs(maps.reshape(len(maps), -1)).astype(np.float64), axis=1)
    n = values.shape[1]
    total = values.sum(axis=1)
    found = ((2 * np.arange(1, n + 1) - n - 1) * values).sum(axis=1) / np.where(total > 0, n * total, 1)
    return np.where(total > 0, found, 0)


def coherency(maps, again):
    """(1 + Pearson correlation) / 2 of maps [B, h, w] with the maps of the images masked by them: [B] in [0, 1]; 0 if
    one is constant, as in the authors' code."""
    a, b = (one.reshape(len(one), -1) for one in (maps, again))
    alive = (np.ptp(a, axis=1) > 0) & (np.ptp(b, axis=1) > 0)
    return np.where(alive, (1 + correlation(a, b)) / 2, 0)


def adcc(coherencies, complexities, drops):
    """Harmonic mean of coherency, 1 - complexity and 1 - confidence drop, each [B] in [0, 1]; 0 if one is 0."""
    goods = np.stack([coherencies, 1 - complexities, 1 - drops])
    with np.errstate(divide='ignore'):
        return 3 / (1 / np.maximum(goods, 0)).sum(axis=0)
