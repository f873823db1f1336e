"""Scores by changed images: remove-and-classify, the confidence drop, deletion and insertion.

B images of size S x S, K changed versions of each, R random draws, M maps of each image. p is p(y|x) of the explained
class y. Only the order of a map's pixels counts here (their ranks, `descending_rank`), but for the confidence drop,
which takes maps in [0, 1]. Erased pixels are 0: the mean colour of normalised images.
"""

import numpy as np
import torch
from torchvision.transforms import functional

ERASE_K = (0.1, 0.3, 0.5, 0.7, 0.9)  # erased shares of remove-and-classify
BLUR_SIZE = 11  # pixels; of the insertion game's first image, as RISE's published evaluation has it
BLUR_SIGMA = 5.0  # pixels; the same


def descending_rank(scores):
    """Rank of each pixel [N, HW], 0 for the highest score; ties by index. scores: tensor [N, HW]."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def highest(scores, count):
    """Which `count` pixels of each row of scores [N, HW] are the highest: bool [N, HW]; `descending_rank` < count, but
    without a sort."""
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    lowest = scores.kthvalue(scores.shape[1] - count + 1, dim=1, keepdim=True).values  # of those that are among them
    above = scores > lowest
    equal = scores == lowest
    return above | equal & (equal.cumsum(dim=1) <= count - above.sum(dim=1, keepdim=True))


def without(images, erased):
    """Images [N, 3, H, W] with the erased pixels, bool [N, HW], set to 0."""
    return images * ~erased.view(len(images), 1, *images.shape[2:])


def lowest(rank, k):
    """Which pixels the share k erases: the int(k HW) of lowest rank [N, HW], bool [N, HW]."""
    return rank < int(k * rank.shape[1])


def random_scores(seed, number, draws, pixels):
    """Random scores [draws, pixels] of the test image `number`, whose highest pixels are erased.

    They are drawn on the host and for each image by itself, so that every device, batch and process erases the same.
    """
    words = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(words[0]) >> 1)
    return torch.rand(draws, pixels, generator=generator)


@torch.no_grad()
def right_erased(model, images, labels, erased):
    """Is each of B images classified right without the erased pixels: bool [B, K], on the device.

    images [B, 3, S, S]; erased: K times bool [B, SS]. An accelerator takes all K at once, a CPU one after the other.
    """
    changed = (without(images, one) for one in erased)  # K times [B, 3, S, S]
    groups = changed if images.device.type == 'cpu' else [torch.cat(list(changed))]
    predicted = torch.cat([model(group).probs.argmax(dim=1) for group in groups])  # [K B]
    return (predicted.view(-1, len(images)) == labels).T


def right_highest(model, images, labels, rank):
    """`right_erased` of the highest pixels, for each k: bool [B, K], on the device; rank: [B, SS], one order for all
    k."""
    return right_erased(model, images, labels, (lowest(rank, k) for k in ERASE_K))


def random_counts(model, images, labels, numbers, seed, repeats):
    """In how many of `repeats` draws from (seed, number of the image) each image is right without random pixels, for
    each k: [B, K], on the device.

    numbers: of the images in the test split [B].
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
    """R_k = correct(top-k erased) / correct(random-k erased), a list over k; None where nothing random is right."""
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

    p: of the whole image [B]; p_masked: of the image times its map in [0, 1], [B]. p = 0 leaves nothing to drop: 0.
    """
    return torch.where(p > 0, (p - p_masked).clamp(min=0) / torch.where(p > 0, p, 1), 0)


def wins(drops):
    """Is map i's drop smaller than map j's on each image, bool [M, M, B], from drops [M, B]; ties in neither."""
    return drops[:, None] < drops[None]


def changed_scores(score, start, end, rank, labels, counts, batch_size):
    """score(images, labels) of each image with its counts[k] pixels of lowest rank replaced: [B, K].

    start, end: images [B, 3, S, S], the latter holds the new pixels; rank: [B, SS]; counts: ints [K]. All versions of
    all images are made and scored batch_size at a time, which bounds the memory.
    """
    counts = torch.as_tensor(counts, device=rank.device)
    image = torch.arange(len(start), device=rank.device).repeat_interleave(len(counts))  # [B K]: whose version
    count = counts.repeat(len(start))  # [B K]
    results = []
    for rows in torch.arange(len(image), device=rank.device).split(batch_size):
        b = image[rows]
        new = (rank[b] < count[rows, None]).view(-1, 1, *start.shape[2:])  # [n, 1, S, S]
        results.append(score(torch.where(new, end[b], start[b]), labels[b]))
    return torch.cat(results).view(len(start), len(counts))


def curve_counts(pixels, steps):
    """Pixels replaced at each point of a deletion or insertion curve: [steps + 1], from none to all."""
    return [pixels * step // steps for step in range(steps + 1)]


def blurred(images):
    """Images [B, 3, S, S] under a Gaussian of 11 pixels (or as many as fit) and deviation 5, with mirrored edges."""
    size = min(BLUR_SIZE, 2 * min(images.shape[2:]) - 1)
    return functional.gaussian_blur(images.float(), size, BLUR_SIGMA).to(images)  # slow in float16 on a CPU


def deletion_curve(score, images, p, rank, labels, steps, batch_size):
    """p [B, steps + 1] while the highest pixels turn to 0: RISE (Petsiuk et al., BMVC 2018), deletion.

    p: score(images, labels) [B], where the curve begins; the other arguments as in `changed_scores`.
    """
    counts = curve_counts(rank.shape[1], steps)[1:]
    changed = changed_scores(score, images, torch.zeros_like(images), rank, labels, counts, batch_size)
    return torch.cat([p[:, None], changed], dim=1)


def insertion_curve(score, images, p, rank, labels, steps, batch_size):
    """p [B, steps + 1] while the highest pixels of the image appear on its blurred version: RISE, insertion.

    p: score(images, labels) [B], where the curve ends; the other arguments as in `changed_scores`.
    """
    counts = curve_counts(rank.shape[1], steps)[:-1]
    changed = changed_scores(score, blurred(images), images, rank, labels, counts, batch_size)
    return torch.cat([changed, p[:, None]], dim=1)


def area_under(curve):
    """Area under a curve [N] of equally spaced points over [0, 1], by trapezoids."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))
