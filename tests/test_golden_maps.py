"""The released CAM network's readouts and gradient maps (golden/maps.npz, README there)."""

import os

import cv2
import numpy as np
import pytest
import torch
from conftest import GOLDEN
from torch.nn import functional
from weights import fill

import wsol
from wsol import attribution
from wsol.attribution import gradient
from wsol.scoring import maps as scoring_maps

MAPS = np.load(os.path.join(GOLDEN, 'maps.npz'))


@pytest.fixture(scope='module')
def released():
    """(network, images [2, 3, 64, 64], labels, the four noises) of the golden figures."""
    model = wsol.build_model('resnet50', 'CAM', 10, large_feature_map=True).eval()
    wsol.load_weights(model, fill(model.state_dict(), seed=1))
    rng = np.random.default_rng(6)
    images = torch.from_numpy(rng.normal(0, 1, (2, 3, 64, 64)).astype(np.float32))
    noises = [torch.from_numpy(rng.normal(0, 1, (2, 3, 64, 64)).astype(np.float32)) for _ in range(4)]
    return model, images, [3, 7], noises


@pytest.mark.parametrize('name', [key.partition('/')[2] for key in MAPS.files if key.startswith('readout/')])
def test_readouts_of_a_cam_network(name, released):
    """gtcond of CAM is p(y,z|x) over the softmax of its mean scores, by which it differs from CALM's."""
    model, images, labels, _ = released
    golden = MAPS[f'readout/{name}']
    found = attribution.explain(name, model, images, labels).numpy()
    assert np.abs(found - golden).max() <= 1e-5 * np.abs(golden).max()


@pytest.mark.parametrize('name', [key.partition('/')[2] for key in MAPS.files if key.startswith('gradient/')])
@pytest.mark.slow
def test_gradient_maps(name, released, monkeypatch):
    """Within 1 % of the maximum: float32 rounding moves ReLU kinks."""
    model, images, labels, noises = released
    draws = iter(noises)
    monkeypatch.setattr(gradient, 'standard_normal', lambda shape, streams, like: next(draws))
    golden = MAPS[f'gradient/{name}']
    found = attribution.explain(
        name, model, images, labels, smooth_grad_nr_iter=4, smooth_grad_sigma=4, integrated_grad_nr_iter=4
    ).numpy()
    assert np.abs(found - golden).max() <= 0.01 * golden.max()
    assert np.abs(found - golden).mean() <= 1e-3 * golden.mean()


@pytest.mark.parametrize('ksize', [3, 5, 7, 9, 15])
def test_smoothing_is_the_released_gaussian(ksize):
    """The released kernel written out: exp(-x^2 / 2 s^2), s = .3 ((k - 1) / 2 - 1) + .8, sum 1, reflected edges."""
    maps = np.random.default_rng(ksize).random((2, 32, 32)).astype(np.float32)
    deviation = 0.3 * ((ksize - 1) / 2 - 1) + 0.8
    axis = torch.arange(ksize, dtype=torch.float64) - (ksize - 1) / 2
    one = torch.exp(-((axis / deviation) ** 2) / 2)
    kernel = one[:, None] * one[None] / one.sum() ** 2
    padded = functional.pad(torch.from_numpy(maps).double()[:, None], (ksize // 2,) * 4, mode='reflect')
    expected = functional.conv2d(padded, kernel[None, None])[:, 0].numpy()
    np.testing.assert_allclose(scoring_maps.smooth(maps, ksize), expected, atol=1e-6)
    if ksize < 9:  # what OpenCV takes where it is left to choose is another filter
        table = np.stack([cv2.GaussianBlur(map_, (ksize, ksize), 0) for map_ in maps])
        assert np.abs(table - expected).max() > 0.005


def test_score_maps_are_resized_in_float64():
    maps = np.random.default_rng(0).normal(size=(3, 14, 14)).astype(np.float32)
    found = scoring_maps.score_maps(maps, 56)
    assert found.dtype == np.float64
    for native, one in zip(maps, found):
        wide = cv2.resize(native.astype(np.float64), (56, 56), interpolation=cv2.INTER_CUBIC)
        wide = (wide - wide.min()) / (wide - wide.min()).max()
        np.testing.assert_array_equal(one, wide)
