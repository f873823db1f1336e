"""Scores by modified images: remove-and-classify, confidence drop, deletion and insertion.

B images of size S x S, K modified versions of each, R random draws, M maps per image. p is p(y|x) of the explained
class y. Only the ranks of a map's pixels matter (`descending_rank`), except for the confidence drop, which takes maps
in [0, 1]. Erased pixels become 0: the mean colour of normalised images.
"""

import numpy as np
import torch
from torchvision.transforms import functional

from ..attribution.common import stream_of

ERASE_K = (0.1, 0.3, 0.5, 0.7, 0.9)  # erased shares of remove-and-classify
BLUR_SIZE = 11  # px; blur of insertion's first image, as in RISE's published evaluation
BLUR_SIGMA = 5.0  # px


def descending_rank(scores):
    """Rank of each pixel [N, HW], 0 for the highest score; ties by index. scores: tensor [N, HW]."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def highest(scores, count):
    """The `count` highest pixels of each row of scores [N, HW], bool [N, HW]; ties as in `descending_rank`."""
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    lowest = scores.kthvalue(scores.shape[1] - count + 1, dim=1, keepdim=True).values  # the lowest selected score
    above = scores > lowest
    equal = scores == lowest
    return above | equal & (equal.cumsum(dim=1) <= count - above.sum(dim=1, keepdim=True))


def without(images, erased):
    """Images [N, 3, H, W] with the erased pixels, bool [N, HW], set to 0."""
    return images * ~erased.view(len(images), 1, *images.shape[2:])


def lowest(rank, k):
    """Pixels erased for share k: the int(k HW) of lowest rank [N, HW], bool [N, HW]."""
    return rank < int(k * rank.shape[1])


def random_scores(seed, number, draws, pixels):
    """Random scores [draws, pixels] for test image `number`; the highest pixels are erased.

    Drawn per image on the host, so that every device, batch and process erases the same pixels.
    """
    return torch.rand(draws, pixels, generator=stream_of(seed, number))


@torch.no_grad()
def right_erased(model, images, labels, erased):
    """Is each of B images classified correctly with the erased pixels at 0? bool [B, K], on the device.

    images [B, 3, S, S]; erased: K times bool [B, SS]. Accelerators process all K at once, CPUs one by one.
    """
    changed = (without(images, one) for one in erased)  # K times [B, 3, S, S]
    groups = changed if images.device.type == 'cpu' else [torch.cat(list(changed))]
    predicted = torch.cat([model(group).probs.argmax(dim=1) for group in groups])  # [K B]
    return (predicted.view(-1, len(images)) == labels).T


def right_highest(model, images, labels, rank):
    """`right_erased` with the highest pixels erased, per k: bool [B, K], on the device; rank: [B, SS]."""
    return right_erased(model, images, labels, (lowest(rank, k) for k in ERASE_K))


def random_counts(model, images, labels, numbers, seed, repeats):
    """In how many of `repeats` draws each image is classified correctly with random pixels erased, per k: [B, K], on
    the device.

    numbers: indices of the images in the test split [B]; they and seed determine the draws.
    """
    pixels = images.shape[2] * images.shape[3]
    drawn = [random_scores(seed, number, len(ERASE_K) * repeats, pixels) for number in numbers]  # B times [K R, SS]
    scores = torch.stack(drawn).view(len(drawn), len(ERASE_K), repeats, pixels).to(images.device)
    return sum(
        right_erased(
            model, images, labels, (highest(scores[:, i, draw], int(k * pixels)) for i, k in enumerate(ERASE_K))
        ).long()
        for draw in range(repeats)
    )


def erasing_ratios(correct_topk, correct_random):
    """R_k = correct(top-k erased) / correct(random-k erased), a list over k; None if the denominator is 0."""
    return [top / random if random else None for top, random in zip(correct_topk, correct_random)]


def target_probability(model, images, labels):
    """p(y|x) [B] of the labels [B], without a graph."""
    with torch.no_grad():
        return model(images).probs.gather(1, labels[:, None]).squeeze(1)


def masked_by(images, scaled):
    """Images [B, 3, S, S] times their maps [B, S, S] in [0, 1]."""
    return images * scaled[:, None]


def confidence_drop(p, p_masked):
    """max(0, p - p_masked) / p, [B] in [0, 1]: the drop of Grad-CAM++ (Chattopadhay et al., WACV 2018, sec. 4.1).

    p: for the image [B]; p_masked: for the image times its map in [0, 1], [B]. p = 0 gives 0.
    """
    return torch.where(p > 0, (p - p_masked).clamp(min=0) / torch.where(p > 0, p, 1), 0)


def wins(drops):
    """Is map i's drop smaller than map j's, per image: bool [M, M, B] from drops [M, B]; ties win neither."""
    return drops[:, None] < drops[None]


def changed_scores(score, start, end, rank, labels, counts, batch_size):
    """score(images, labels) of each image with its counts[k] pixels of lowest rank replaced: [B, K].

    start, end: images [B, 3, S, S], the latter has the new pixels; rank: [B, SS]; counts: ints [K]. batch_size bounds
    the number of images in memory.
    """
    counts = torch.as_tensor(counts, device=rank.device)
    image = torch.arange(len(start), device=rank.device).repeat_interleave(len(counts))  # [B K]: each version's image
    count = counts.repeat(len(start))  # [B K]
    results = []
    for rows in torch.arange(len(image), device=rank.device).split(batch_size):
        b = image[rows]
        new = (rank[b] < count[rows, None]).view(-1, 1, *start.shape[2:])  # [n, 1, S, S]
        results.append(score(torch.where(new, end[b], start[b]), labels[b]))
    return torch.cat(results).view(len(start), len(counts))


def curve_counts(pixels, steps):
    """Number of replaced pixels at each point of a deletion or insertion curve: [steps + 1], from none to all."""
    return [pixels * step // steps for step in range(steps + 1)]


def blurred(images):
    """Images [B, 3, S, S] blurred by a Gaussian of 11 px (or as many as fit) and deviation 5 px, reflected edges."""
    size = min(BLUR_SIZE, 2 * min(images.shape[2:]) - 1)
    return functional.gaussian_blur(images.float(), size, BLUR_SIGMA).to(images)  # slow in float16 on a CPU


def deletion_curve(score, images, p, rank, labels, steps, batch_size):
    """p [B, steps + 1] while the highest pixels become 0: RISE (Petsiuk et al., BMVC 2018), deletion.

    p: score(images, labels) [B], the curve's first point; other arguments as in `changed_scores`.
    """
    counts = curve_counts(rank.shape[1], steps)[1:]
    changed = changed_scores(score, images, torch.zeros_like(images), rank, labels, counts, batch_size)
    return torch.cat([p[:, None], changed], dim=1)


def insertion_curve(score, images, p, rank, labels, steps, batch_size):
    """p [B, steps + 1] while the image's highest pixels are inserted into its blurred version: RISE, insertion.

    p: score(images, labels) [B], the curve's last point; other arguments as in `changed_scores`.
    """
    counts = curve_counts(rank.shape[1], steps)[:-1]
    changed = changed_scores(score, blurred(images), images, rank, labels, counts, batch_size)
    return torch.cat([changed, p[:, None]], dim=1)


def area_under(curve):
    """Areas under curves [..., N] of equally spaced points over [0, 1], trapezoidal rule."""
    return np.trapezoid(curve, dx=1 / (np.shape(curve)[-1] - 1))
