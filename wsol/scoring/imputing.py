"""ROAD: p(y|x) while the most, or the least, relevant pixels are imputed from their neighbours.

Source: Rong et al., ICML 2022, noisy linear imputation. A removed pixel is the weighted mean of its eight neighbours,
which may be removed too: a sparse linear system, solved for all of them jointly. S is the side of an image.
"""

import math

import numpy as np
import torch

SHARES = (0.2, 0.4, 0.6, 0.8)  # shares of removed pixels
NOISE = 0.01  # deviation of the noise on imputed pixels, as in the authors' code
DIRECT = 1 / 6  # weight of horizontal and vertical neighbours
CORNER = 1 / 12  # weight of diagonal neighbours
WEIGHTS = {(y, x): CORNER if y and x else DIRECT for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x}


def system(image, missing):
    """(A [n, n] sparse, b [n, c]) of A v = b for the n missing pixels v of an image [c, S, S]; missing: bool [S, S].

    Each row states that a pixel is the mean of its neighbours; the weights of those inside the image add up to 1.
    """
    from scipy.sparse import csc_matrix  # imported here: only this score needs it

    rows, columns = missing.nonzero()
    numbers = np.pad(np.where(missing, missing.cumsum().reshape(missing.shape) - 1, -1), 1, constant_values=-2)
    wide = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    total = np.zeros(len(rows))
    b = np.zeros((len(rows), len(image)))
    entries = []  # (rows, columns, values) of A
    for (down, right), weight in WEIGHTS.items():
        beside = rows + 1 + down, columns + 1 + right
        other = numbers[beside]  # the neighbour's number; -1: known; -2: outside the image
        total += weight * (other != -2)
        b[other == -1] += weight * wide[:, *beside].T[other == -1]
        unknown = (other >= 0).nonzero()[0]
        entries.append((unknown, other[unknown], np.full(len(unknown), -weight)))
    entries.append((np.arange(len(rows)), np.arange(len(rows)), total))
    i, j, values = (np.concatenate(chunks) for chunks in zip(*entries))
    return csc_matrix((values, (i, j)), shape=(len(rows), len(rows))), b


def impute(image, missing):
    """The image [c, S, S], an array, with its missing pixels, bool [S, S], imputed from at least one known pixel."""
    from scipy.sparse.linalg import splu

    A, b = system(image.astype(np.float64), missing)
    filled = image.copy()
    # A is symmetric and diagonally dominant: no pivoting, and an ordering for symmetric matrices
    solved = splu(A, 'MMD_AT_PLUS_A', diag_pivot_thresh=0, options={'SymmetricMode': True}).solve(b)
    filled[:, missing] = solved.T
    return filled


def road(score, images, labels, rank, streams, batch_size):
    """Mean over SHARES of (p without the least relevant pixels - p without the most relevant ones) / 2: [B] in
    [-1/2, 1/2], higher is better.

    score(images, labels) -> p [n]; images [B, 3, S, S]; rank [B, SS]: 0 is the most relevant pixel; streams: one
    torch.Generator per image on the host, for the noise.
    """
    b, channels, *size = images.shape
    pixels = rank.shape[1]
    changed = []
    for image, order, stream in zip(images.cpu().numpy(), rank.cpu().view(b, *size).numpy(), streams):
        for share in SHARES:
            count = pixels - math.ceil((1 - share) * (pixels - 1))  # as np.percentile
            for missing in (order < count, order >= pixels - count):
                one = torch.from_numpy(impute(image, missing))
                noise = torch.randn(channels, count, generator=stream)
                one[:, torch.from_numpy(missing)] += NOISE * noise
                changed.append(one)
    owner = torch.arange(b, device=images.device).repeat_interleave(2 * len(SHARES))
    chunks = zip(torch.stack(changed).split(batch_size), owner.split(batch_size))
    p = torch.cat([score(chunk.to(images), labels[rows]) for chunk, rows in chunks]).view(b, len(SHARES), 2)
    return (p[:, :, 1] - p[:, :, 0]).mean(dim=1) / 2
