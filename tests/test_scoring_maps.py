"""Maps before they are scored: the protocol's scaling, against the torch one and a NumPy version bit for bit."""

import math

import cv2
import numpy as np
import pytest
import torch

from wsol import attribution
from wsol.scoring import maps


def test_normalize_follows_the_protocol():
    scores = np.array(
        [[[2.0, 4.0], [1.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]], [[np.nan, 1.0], [0.0, 2.0]], [[-1.0, 0.0], [0.5, 2.0]]],
        np.float32,
    )
    kept = scores.copy()
    assert maps.normalize(scores, 'max')[0].tolist() == [[0.5, 1.0], [0.25, 0.75]]
    assert maps.normalize(scores, 'minmax')[0, 1].tolist() == [0, pytest.approx(2 / 3)]
    assert maps.normalize(scores, 'clipping')[3].tolist() == [[0, 0], [0.5, 1]]
    for kind in ('max', 'minmax', 'clipping'):
        assert not maps.normalize(scores, kind)[1:3].any()
    np.testing.assert_array_equal(scores, kept)
    with pytest.raises(ValueError, match='minmax'):
        maps.normalize(scores, 'sum')


def numpy_normalize(scores, norm_type):
    """The same by NumPy, which localization and cue figures were first made with."""
    flat = scores.reshape(len(scores), -1)
    low = flat.min(axis=1)
    high = flat.max(axis=1)
    with np.errstate(invalid='ignore', divide='ignore', over='ignore'):
        if norm_type == 'max':
            flat = flat / high[:, None]
        elif norm_type == 'minmax':
            flat = flat - low[:, None]
            flat = flat / flat.max(axis=1, keepdims=True)
        flat = np.clip(flat, 0, 1)
    return np.where(low < high, flat.T, 0).T.reshape(scores.shape)


def awkward_maps(dtype):
    """Groups of maps [3, H, W]: of both signs or one, constant, with NaN, infinities or zeros of a sign, tiny, huge."""
    rng = np.random.default_rng(7)
    for shape in ((3, 9, 7), (3, 32, 32), (3, 1, 5), (3, 1, 1)):
        for scale in (1, 1e-30, 1e30, 1e-42):
            signed = (rng.normal(size=shape) * scale).astype(dtype)
            zeros = np.where(rng.random(shape) < 0.5, -0.0, signed).astype(dtype)
            yield from (signed, np.abs(signed), zeros, np.maximum(zeros, 0), -np.abs(signed) - dtype(scale))
            for value in (np.nan, np.inf, -np.inf):
                changed = signed.copy()
                changed[1, 0, 0] = value
                yield changed
                yield np.full(shape, value, dtype)
        yield from (np.zeros(shape, dtype), -np.zeros(shape, dtype), np.full(shape, -0.3, dtype))


@pytest.mark.parametrize('norm_type', ['max', 'minmax', 'clipping'])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_normalize_equals_the_torch_one_and_numpys_bit_for_bit(norm_type, dtype):
    compared = 0
    for scores in awkward_maps(dtype):
        result = maps.normalize(scores, norm_type)
        by_torch = attribution.normalize(torch.from_numpy(scores), norm_type).numpy()
        assert result.dtype == dtype and result.tobytes() == by_torch.tobytes()
        usual = np.ones(3, bool)
        if norm_type == 'max':  # where the maximum is 0 NumPy's divides by it
            usual = (scores.max(axis=(1, 2)) != 0) | (scores.min(axis=(1, 2)) == 0)
        np.testing.assert_array_equal(result[usual], numpy_normalize(scores, norm_type)[usual])  # NaN equals NaN
        compared += usual.sum()
    assert compared > 500


def test_a_map_without_anything_above_zero_has_no_score():
    """NumPy's version divided by the maximum 0 and gave NaN; cue localization's absolute values never come to that."""
    assert maps.normalize(np.array([[[-2.0, 0.0]]], np.float32), 'max').tolist() == [[[0, 0]]]


def test_score_maps_are_opencvs_bicubic_filter_then_min_max():
    native = np.random.default_rng(3).random((2, 5, 5)).astype(np.float32)
    for one, got in zip(native, maps.score_maps(native, 17)):
        large = cv2.resize(one.astype(np.float64), (17, 17), interpolation=cv2.INTER_CUBIC)
        np.testing.assert_array_equal(got, (large - large.min()) / (large - large.min()).max())


def test_resize_is_opencvs_bilinear_filter_on_each_map():
    small = np.random.default_rng(2).random((3, 5, 5)).astype(np.float32)
    resized = maps.resize(small, 17)
    np.testing.assert_array_equal(resized[1], cv2.resize(small[1], (17, 17)))
    assert maps.resize(resized, 17) is resized


def test_smoothing_by_hand():
    """Of 3 pixels the deviation is .8: beside the middle lies exp(-1 / 1.28) of it, beyond the edge the mirror."""
    dots = np.zeros((2, 5, 5), np.float32)
    dots[0, 2, 2] = 1
    dots[1, 0, 1] = 1  # in the first row: its neighbour below sees it once, the mirrored row above the edge is row 1
    side = math.exp(-1 / (2 * 0.8**2))
    row = np.array([0, side, 1, side, 0]) / (1 + 2 * side)
    np.testing.assert_allclose(maps.smooth(dots, 3)[0], row[:, None] * row, atol=1e-6)
    first = np.array([2 * side, 1, side, 0, 0]) / (1 + 2 * side)  # the corner sees the dot on both of its sides
    below = np.array([1, side, 0, 0, 0]) / (1 + 2 * side)
    np.testing.assert_allclose(maps.smooth(dots, 3)[1], below[:, None] * first, atol=1e-6)
    assert maps.smooth(dots, 1) is dots
    for ksize in (2, 4):
        with pytest.raises(ValueError, match=f'{ksize} is even: give an odd'):
            maps.smooth(dots, ksize)


def test_blurring_is_the_gaussian_of_opencv():
    """A deviation of 2 reaches six pixels far, and beyond the edge the mirror."""
    some = np.random.default_rng(5).normal(size=(3, 20, 20)).astype(np.float32)
    found = maps.blur(torch.from_numpy(some), 2.0).numpy()
    expected = [cv2.GaussianBlur(one, (13, 13), 2.0, borderType=cv2.BORDER_REFLECT_101) for one in some]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert maps.blur(found, 0) is found
    with pytest.raises(ValueError, match='blur 7 is too large for maps of 20 pixels'):
        maps.blur(torch.zeros(1, 20, 20), 7)


def test_an_array_is_normalized_as_a_tensor_and_comes_back_as_an_array():
    scores = np.array([[[1, 3], [2, 5]]], np.float32)
    found = maps.normalize(scores, 'minmax')
    assert isinstance(found, np.ndarray) and found.dtype == np.float32
    assert found.tolist() == maps.normalize(torch.from_numpy(scores), 'minmax').tolist() == [[[0, 0.5], [0.25, 1]]]
    assert scores.tolist() == [[[1, 3], [2, 5]]]
