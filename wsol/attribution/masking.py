"""Perturbation methods on the image alone, without layer or gradient: RISE and occlusion.

Maps are [B, h, w], at image size. options.batch_size bounds the number of perturbed images in memory. Errors: see
common.explainer and common.chosen.
"""

import math

import torch

from .common import Options, baseline_of, chosen, chunks, explainer, noise_streams, predicted, scores_of
from .postprocessing import upsample

RISE_CELLS = 7  # side of a mask's grid; as in the paper
RISE_KEPT = 0.5  # probability of keeping a cell; as in the paper
OCCLUDED = 8  # default side of the square: the image's shorter side over this


def rise_masks(cells, shifts, size):
    """Masks [n, h, w] in [0, 1] for images of `size` (h, w).

    Each grid [n, s, s] is enlarged bilinearly to one cell more than the image and cropped at its shift, [n, 2] in [0,
    1) of a cell.
    """
    cell = [math.ceil(side / cells.shape[1]) for side in size]
    large = upsample(cells, [(cells.shape[1] + 1) * side for side in cell])
    corners = [[int(share * side) for share, side in zip(shift, cell)] for shift in shifts.tolist()]
    return torch.stack([one[y : y + size[0], x : x + size[1]] for one, (y, x) in zip(large, corners)])


def _rise(model, image, target, stream, options):
    """Map [h, w] of one image [c, h, w] and class, a LongTensor [1]."""
    n = options.rise_nr_masks
    cells = (torch.rand(n, RISE_CELLS, RISE_CELLS, generator=stream, device=stream.device) < RISE_KEPT).to(image)
    shifts = torch.rand(n, 2, generator=stream, device=stream.device)
    total = 0
    for rows in chunks(n, options.batch_size, options, 'random masks'):
        masks = rise_masks(cells[rows], shifts[rows], image.shape[1:])  # [n, h, w]
        score = chosen(scores_of(model, masks[:, None] * image), target.expand(len(masks)))[0]
        total = total + torch.einsum('n,nhw->hw', score.float(), masks.float())
    return (total / (n * RISE_KEPT)).to(image.dtype)


@explainer
def rise(model, images, target=None, options=Options()):
    """(1 / (N E[M])) sum_i S_y(M_i x) M_i over N = rise_nr_masks random masks, the mean score when a pixel is visible:
    RISE (Petsiuk et al., BMVC 2018, eq. 6).

    A mask is a grid of 7 x 7 cells, each kept with probability 1/2, enlarged and randomly shifted. The paper's score is
    a probability; here it is S_y, as in every map.

    >>> rise(model, images, target=[3, 1], rise_nr_masks=20).shape
    torch.Size([2, 16, 16])
    """
    with torch.no_grad():
        target = predicted(model, images, target)
        rows = zip(images, target.view(-1, 1), noise_streams(images, options))
        return torch.stack([_rise(model, *row, options) for row in rows])


def windows(size, window):
    """Squares (top, left, bottom, right) of side `window` that cover an image of `size` (h, w), half a side apart."""
    stride = max(1, window // 2)
    starts = [[stride * i for i in range(math.ceil(max(0, side - window) / stride) + 1)] for side in size]
    return [(y, x, min(y + window, size[0]), min(x + window, size[1])) for y in starts[0] for x in starts[1]]


@explainer
def occlusion(model, images, target=None, options=Options()):
    """Mean of S_y(x) - S_y(x with a square occluded) over the squares that cover the pixel: occlusion (Zeiler and
    Fergus, ECCV 2014), signed.

    The squares are `windows` of side occlusion_window, filled with options.baseline.

    >>> occlusion(model, images, target=[3, 1], occlusion_window=4).shape
    torch.Size([2, 16, 16])
    """
    b, _, *size = images.shape
    squares = windows(size, options.occlusion_window or max(1, min(size) // OCCLUDED))
    start = baseline_of(images, options)
    total = torch.zeros(b, *size, device=images.device)
    times = torch.zeros(size, device=images.device)
    with torch.no_grad():
        score, target = chosen(scores_of(model, images), target)
        for rows in chunks(len(squares), max(1, options.batch_size // b), options, 'squares'):
            changed = images.repeat(rows.stop - rows.start, 1, 1, 1)  # [n B, c, h, w]
            for i, (top, left, bottom, right) in enumerate(squares[rows]):
                changed[i * b : (i + 1) * b, :, top:bottom, left:right] = start[:, :, top:bottom, left:right]
            rest = chosen(scores_of(model, changed), target.repeat(len(changed) // b))[0].view(-1, b)  # [n, B]
            for (top, left, bottom, right), one in zip(squares[rows], rest):
                total[:, top:bottom, left:right] += (score - one).float()[:, None, None]
                times[top:bottom, left:right] += 1
    return (total / times).to(images.dtype)
