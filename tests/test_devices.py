"""Every numerical path on every device that this machine has, against the CPU in float64 or against counts by hand.

The fixture `device` (conftest.py) gives the CPU and, where there is one, CUDA; `accelerator` gives CUDA or a skip.
"""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_attribution import FEW, NOISY, network, photos

from wsol import ATTRIBUTION_METHODS, attribution, calm, cam, lfi_cam
from wsol.attribution import cam_family, gradient, masking, perturbation
from wsol.network import HEADS
from wsol.scoring import erasing, pixels

pytestmark = pytest.mark.usefixtures('exact')


def near(found, expected, tolerance):
    """Relative to the largest value expected, which is not 0."""
    found = found.detach().cpu().double()
    assert found.shape == expected.shape and found.isfinite().all() and expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


# ---- equations and losses


def scores():
    f = 3 * torch.randn(3, 7, 4, 5, dtype=torch.float64)
    h = torch.relu(torch.randn(3, 1, 4, 5, dtype=torch.float64))
    h[:, 0, 0, 0] = 0.3  # never dead
    return f, h, torch.tensor([1, 6, 0])


EQUATIONS = {
    'p_z_given_x': lambda f, h: calm.p_z_given_x(h),
    'log_p_z_given_x': lambda f, h: calm.log_p_z_given_x(h),
    'p_yz_given_x': calm.p_yz_given_x,
    'p_y_given_x': calm.p_y_given_x,
    'log_p_y_given_x': calm.log_p_y_given_x,
    'p_z_given_xy': calm.p_z_given_xy,
    'cam': lambda f, h: cam.p_y_given_x(f),
    'lfi_cam': lambda f, h: lfi_cam.attention_map(f, h.mean(dim=(2, 3)).expand(-1, f.shape[1])),
}


@pytest.mark.parametrize('name', EQUATIONS)
def test_equations(name, device):
    f, h, _ = scores()
    expected = EQUATIONS[name](f, h)
    near(EQUATIONS[name](f.float().to(device), h.float().to(device)), expected, 1e-5)


@pytest.mark.parametrize('method', ATTRIBUTION_METHODS)
def test_losses_and_their_gradients(method, device):
    f, h, y = scores()
    loss = HEADS[method].loss

    def gradients(dtype, place):
        given = [one.to(place, dtype, copy=True).requires_grad_() for one in (f, h)]
        value = loss(*given, y.to(place))
        return value, torch.autograd.grad(value.sum(), given, materialize_grads=True)

    value, expected = gradients(torch.float64, 'cpu')
    found, own = gradients(torch.float32, device)
    near(found, value, 1e-5)
    for one, other in zip(own, expected):
        if other.abs().max() > 0:  # CAM's attention learns nothing
            near(one, other, 1e-4)


# ---- maps


@pytest.mark.parametrize('name', list(attribution.MAPS))
def test_maps(name, device, monkeypatch):
    """To 1e-4 of the maximum, with the same noise."""
    net = network('CALM-EM')
    images = photos(2)
    if name in NOISY:

        def on_host(images, options):
            return [torch.Generator().manual_seed(seed) for seed in options.noise_seeds]

        for module in (gradient, cam_family, masking, perturbation):
            monkeypatch.setattr(module, 'noise_streams', on_host)
    options = {**FEW, 'noise_seeds': [3, 4]}
    expected = attribution.explain(name, copy.deepcopy(net).double(), images.double(), [1, 3], **options)
    found = attribution.explain(name, net.to(device), images, [1, 3], **options)
    assert found.device.type == device.type
    near(found, expected, 1e-4)


# ---- counts


def test_ranks_and_erasing(device):
    """Equal counts: ties by index, the same random pixels."""
    values = torch.randint(0, 40, (3, 400), generator=torch.Generator().manual_seed(0)).float() / 7  # with ties
    order = [sorted(range(400), key=lambda pixel, row=row: (-row[pixel], pixel)) for row in values.tolist()]
    ranks = erasing.descending_rank(values.to(device)).cpu()
    assert ranks.argsort(dim=1).tolist() == order
    drawn = torch.rand(3, 36, generator=torch.Generator().manual_seed(seed_of(11, 4)))
    assert torch.equal(erasing.random_scores(11, 4, 3, 36), drawn)
    for scores in (drawn, values):
        assert torch.equal(erasing.highest(scores.to(device), 11).cpu(), erasing.descending_rank(scores) < 11)
    images = torch.randn(3, 3, 20, 20)
    erased = erasing.without(images.to(device), erasing.lowest(ranks.to(device), 0.3)).cpu()
    for image, new, pixels_of in zip(images, erased, order):
        image.flatten(1)[:, pixels_of[:120]] = 0
        assert torch.equal(image, new)


def seed_of(seed, number):
    """The documented seed of an image's draws."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0]) >> 1


def test_remove_and_classify_by_a_model_that_cannot_round(device):
    """Whole numbers decide, so that every device counts the same: those of a loop."""
    images = torch.randint(-4, 5, (12, 3, 6, 6), generator=torch.Generator().manual_seed(1)).float()
    maps = torch.randint(0, 9, (12, 6, 6), generator=torch.Generator().manual_seed(2)).float()
    labels = torch.arange(12) % 2
    numbers = [*range(5, 17)]

    def model(batch):
        value = batch.flatten(1).sum(dim=1)
        return SimpleNamespace(probs=torch.stack([value, -value], dim=1))

    there = [one.to(device) for one in (images, labels)]
    found = {
        'topk': erasing.right_highest(model, *there, erasing.descending_rank(maps.flatten(1).to(device))),
        'random': erasing.random_counts(model, *there, numbers, seed=11, repeats=2),
    }
    topk, random = np.zeros(5), np.zeros(5)
    for image, one, label, number in zip(images, maps.flatten(1).tolist(), labels.tolist(), numbers):
        draws = torch.rand(10, 36, generator=torch.Generator().manual_seed(seed_of(11, number))).tolist()
        for i, k in enumerate(erasing.ERASE_K):
            for counts, scores_of in ((topk, [one]), (random, draws[2 * i : 2 * i + 2])):
                for values in scores_of:
                    changed = image.flatten(1).clone()
                    changed[:, sorted(range(36), key=lambda p: (-values[p], p))[: int(k * 36)]] = 0
                    counts[i] += (0 if changed.sum() >= 0 else 1) == label
    sums = {name: rows.sum(dim=0).tolist() for name, rows in found.items()}
    assert sums == {'topk': topk.tolist(), 'random': random.tolist()}
    assert all(value.device.type == device.type for value in found.values()) and len({*topk, *random}) > 2


def test_histograms(device):
    maps = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(3))
    masks = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(4)) < 0.4
    edges = pixels.histogram_edges(pixels.thresholds('log', 0.1))
    found = pixels.pixel_histogram(maps.to(device), masks.to(device), edges)
    for one, mask, counts in zip(maps.double().numpy(), masks.numpy(), found):
        expected = [[((one[mask == side] >= a) & (one[mask == side] < b)).sum() for a, b in zip(edges, edges[1:])]
                    for side in (False, True)]  # fmt: skip
        np.testing.assert_array_equal(counts, expected)
