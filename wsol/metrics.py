"""Scores of attribution maps: pure functions that accumulate counts and compute figures from them.

N maps, H x W pixels, T thresholds, K erased shares. Source: the released code and the WSOL evaluation protocol
(Choe et al., CVPR 2020), as README's numbered deviations say.
"""

import cv2
import numpy as np
import torch

from .errors import UserError

ERASE_K = (0.1, 0.3, 0.5, 0.7, 0.9)


def resize(maps, size, interpolation=cv2.INTER_LINEAR):
    """Maps [N, h, w] (float32 array) to [N, size, size] with an OpenCV filter, bilinear unless told."""
    if maps.shape[1:] == (size, size):
        return maps
    return np.stack([cv2.resize(one, (size, size), interpolation=interpolation) for one in maps])


def smooth(maps, ksize):
    """Maps [N, H, W] smoothed by a ksize x ksize Gaussian (OpenCV's deviation for that size, mirrored edges); 1 leaves them."""
    if ksize == 1:
        return maps
    if ksize % 2 == 0:
        raise UserError(f'--smoothing_ksize {ksize} is even: give an odd number of pixels')
    return np.stack([cv2.GaussianBlur(one, (ksize, ksize), 0, borderType=cv2.BORDER_REFLECT_101) for one in maps])


def normalize(maps, norm_type):
    """Maps [N, H, W] brought to [0, 1]: 'max', 'minmax' or 'clipping'; a map with NaN or of one value becomes zero."""
    flat = maps.reshape(len(maps), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)  # NaN where the map has one
    bad = ~(low < high)
    with np.errstate(invalid='ignore', divide='ignore'):
        if norm_type == 'max':
            flat = flat / high[:, None]
        elif norm_type == 'minmax':
            flat = flat - low[:, None]
            flat = flat / flat.max(axis=1, keepdims=True)
        elif norm_type != 'clipping':
            raise UserError(f'unknown norm type {norm_type!r}: choose one of max, minmax, clipping')
        flat = np.clip(flat, 0, 1)
    return np.where(bad[:, None], np.zeros_like(flat), flat).reshape(maps.shape)


def thresholds(threshold_type, interval):
    """The protocol's thresholds, ascending: 'even' in [0, 1) or 'log' from about 1e-7 to 1."""
    if threshold_type == 'even':
        return np.arange(0, 1, interval)
    if threshold_type == 'log':
        return np.array(
            [10**-t for t in np.arange(0, 7, interval * 7)[::-1]]
        )  # scalar powers: the array's round otherwise
    raise UserError(f'unknown threshold type {threshold_type!r}: choose one of even, log')


def histogram_edges(taus):
    """Bin edges [T + 4]: -inf, the thresholds, 1, 2, 3. The first bin holds what lies under the first threshold."""
    return np.concatenate([[-np.inf], taus, [1, 2, 3]])


def pixel_histogram(maps, masks, edges, keep=None):
    """Counts [N, 2, bins] of the scores at negative (0) and positive (1) pixels.

    maps: scores in [0, 1] [N, H, W]; masks: bool [N, H, W]; edges: [bins + 1], half-open bins [a, b);
    keep: bool [N, H, W], the pixels that count (None: all).
    """
    bins = len(edges) - 1
    scores = torch.as_tensor(maps).to(torch.float64).flatten(1)  # [N, HW]
    index = torch.bucketize(scores, torch.as_tensor(edges, device=scores.device), right=True) - 1  # [N, HW]
    index += bins * torch.as_tensor(masks, device=scores.device).flatten(1)
    index += 2 * bins * torch.arange(len(scores), device=scores.device)[:, None]
    if keep is not None:
        index = index[torch.as_tensor(keep, device=scores.device).flatten(1)]
    counts = torch.bincount(index.flatten(), minlength=2 * bins * len(scores))
    return counts.view(len(scores), 2, bins).cpu().numpy()


def pixel_average_precision(histogram):
    """PxAP in percent from counts [2, bins] (negatives, positives), ascending bins; None without a positive pixel."""
    negative, positive = histogram[:, ::-1].astype(np.float64)
    tp, fp = positive.cumsum(), negative.cumsum()
    if tp[-1] == 0:
        return None
    some = tp + fp > 0
    precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=some)
    recall = tp / tp[-1]
    return float(100 * (precision[1:] * np.diff(recall))[some[1:]].sum())


def descending_rank(scores):
    """Rank of each pixel [N, HW], 0 for the highest score; ties by index. scores: tensor [N, HW]."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )


def erase(images, rank, k):
    """Images [N, 3, H, W] with the int(k HW) pixels of lowest rank [N, HW] set to 0 (the mean colour once normalised)."""
    keep = rank >= int(k * rank.shape[1])  # [N, HW]
    return images * keep.view(len(images), 1, *images.shape[2:])


def random_ranks(seed, number, draws, pixels, device):
    """Ranks of `draws` random orders [draws, pixels] for the test image `number`: the same whatever batch or process it is in."""
    words = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    generator = torch.Generator(device=device).manual_seed(int(words[0]) >> 1)
    return descending_rank(torch.rand(draws, pixels, generator=generator, device=device))


def erasing_ratios(correct_topk, correct_random):
    """R_k = correct(top-k erased) / correct(random-k erased), a list over k; None where nothing random is right."""
    return [top / random if random else None for top, random in zip(correct_topk, correct_random)]
