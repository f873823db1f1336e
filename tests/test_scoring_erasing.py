"""Scores by changed images: slow independent versions and hand cases."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from wsol.scoring import erasing
from wsol.scoring.maps import normalize


def test_rank_breaks_ties_by_index_and_erase_takes_the_highest():
    scores = torch.tensor([[1.0, 3.0, 3.0, 0.0, 2.0]])
    assert erasing.descending_rank(scores).tolist() == [[3, 0, 1, 4, 2]]
    images = torch.ones(1, 3, 1, 5)
    erased = erasing.without(images, erasing.lowest(erasing.descending_rank(scores), 0.5))
    assert erased[0, 0, 0].tolist() == [1, 0, 0, 1, 1]  # int(2.5) = 2
    assert images.all()


def test_the_erased_shares_are_the_released_ones():
    assert erasing.ERASE_K == (0.1, 0.3, 0.5, 0.7, 0.9)


@pytest.mark.parametrize('k', erasing.ERASE_K)
def test_erase_counts_pixels_as_the_released_code(k):
    rank = erasing.descending_rank(torch.rand(2, 224 * 224))
    erased = erasing.without(torch.ones(2, 3, 224, 224), erasing.lowest(rank, k))
    assert (erased[:, 0] == 0).flatten(1).sum(1).tolist() == [int(k * 224 * 224)] * 2
    assert torch.equal(erased[:, 0], erased[:, 2])


@pytest.mark.parametrize('count', [0, 1, 7, 35, 36])
def test_the_highest_pixels_are_those_of_lowest_rank(count):
    """With ties, which the lower index wins."""
    for scores in (torch.rand(4, 36), torch.randint(0, 4, (4, 36)).float(), torch.zeros(2, 36)):
        assert torch.equal(erasing.highest(scores, count), erasing.descending_rank(scores) < count)


def test_random_scores_are_drawn_from_the_seed_and_the_images_number():
    drawn = erasing.random_scores(11, 4, 3, 36)
    torch.manual_seed(99)
    assert torch.equal(erasing.random_scores(11, 4, 3, 36), drawn)  # whatever was drawn elsewhere
    others = [erasing.random_scores(seed, number, 1, 36)[0] for seed, number in ((11, 5), (12, 4), (4, 11))]
    orders = {tuple(one.argsort().tolist()) for one in (*drawn, *others)}
    assert len(orders) == 6  # no two alike: of the draws, of other images, of other seeds


def test_ratio_with_nothing_right_is_undefined():
    assert erasing.erasing_ratios([1, 2], [4, 0]) == [0.25, None]


def picture(seed, count=3, size=6):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def scalar(images, labels):
    """A stand-in for p(y|x) that depends on every pixel and on the label."""
    weight = torch.linspace(-1, 1, images[0].numel(), dtype=images.dtype)
    return (images.flatten(1) @ weight + labels).sigmoid()


def test_the_drop_is_a_share_of_p_and_a_rise_is_no_drop():
    p = torch.tensor([0.8, 0.5, 0.2, 0, 0])
    masked = torch.tensor([0.2, 0.5, 0.6, 0, 0.3])
    assert erasing.confidence_drop(p, masked).tolist() == pytest.approx([0.75, 0, 0, 0, 0])


def test_images_are_multiplied_by_their_scaled_map():
    images = picture(0)
    maps = np.random.default_rng(0).normal(size=(3, 6, 6)).astype(np.float32)
    maps[2] = 4
    masked = erasing.masked_by(images, torch.from_numpy(normalize(maps, 'minmax')))
    for b in range(2):
        scale = (maps[b] - maps[b].min()) / (maps[b].max() - maps[b].min())
        for c in range(3):
            np.testing.assert_allclose(masked[b, c].numpy(), images[b, c].numpy() * scale, rtol=1e-5, atol=1e-6)
    assert not masked[2].any()  # a constant map leaves the mean colour


def test_wins_equal_the_slow_count_and_ties_are_nobodys():
    drops = torch.randint(0, 4, (4, 30), generator=torch.Generator().manual_seed(0)) / 4
    table = erasing.wins(drops).sum(dim=2)
    for i in range(4):
        for j in range(4):
            assert table[i, j] == sum(a < b for a, b in zip(drops[i].tolist(), drops[j].tolist()))
            assert table[i, j] + table[j, i] + sum(a == b for a, b in zip(drops[i].tolist(), drops[j].tolist())) == 30


def slow_changed(images, new, maps, labels, count):
    """One image at a time, one pixel at a time."""
    values = []
    for image, other, one, label in zip(images, new, maps, labels):
        image = image.clone()
        width = one.shape[1]
        for pixel in sorted(range(one.size), key=lambda i: (-one.flat[i], i))[:count]:
            image[:, pixel // width, pixel % width] = other[:, pixel // width, pixel % width]
        values.append(scalar(image[None], label[None]).item())
    return values


@pytest.mark.parametrize('batch_size', [1, 5, 64])
def test_curves_equal_the_slow_version_in_bounded_batches(batch_size):
    images = picture(1)
    labels = torch.tensor([0, 2, 1])
    maps = np.random.default_rng(1).integers(0, 9, (3, 6, 6))  # with ties
    rank = erasing.descending_rank(torch.from_numpy(maps).flatten(1))
    sizes = []

    def score(x, y):
        sizes.append(len(x))
        return scalar(x, y)

    p = scalar(images, labels)
    deletion = erasing.deletion_curve(score, images, p, rank, labels, 7, batch_size)
    insertion = erasing.insertion_curve(score, images, p, rank, labels, 7, batch_size)
    assert max(sizes) <= batch_size and sum(sizes) == 2 * 7 * 3
    channels = [
        cv2.GaussianBlur(channel, (11, 11), 5, borderType=cv2.BORDER_REFLECT_101)
        for channel in images.flatten(0, 1).numpy()
    ]
    soft = torch.from_numpy(np.stack(channels)).view_as(images)
    for step in range(8):
        count = int(36 * step / 7)
        np.testing.assert_allclose(
            deletion[:, step], slow_changed(images, torch.zeros_like(images), maps, labels, count), rtol=1e-5
        )
        np.testing.assert_allclose(insertion[:, step], slow_changed(soft, images, maps, labels, count), rtol=1e-5)


def test_curves_by_hand():
    """With the image's mean as its score, deletion of a white image falls in a line, insertion of it stays white."""
    white = torch.ones(2, 3, 10, 10)
    labels = torch.zeros(2, dtype=torch.long)

    def mean(images, labels):
        return images.mean(dim=(1, 2, 3))

    rank = erasing.descending_rank(torch.rand(2, 100))
    assert erasing.curve_counts(100, 4) == [0, 25, 50, 75, 100] and erasing.curve_counts(10, 4) == [0, 2, 5, 7, 10]
    deletion = erasing.deletion_curve(mean, white, mean(white, labels), rank, labels, 4, 3)
    np.testing.assert_allclose(deletion.numpy(), [[1, 0.75, 0.5, 0.25, 0]] * 2, atol=1e-6)
    np.testing.assert_allclose(
        erasing.insertion_curve(mean, white, mean(white, labels), rank, labels, 4, 3).numpy(), 1, atol=1e-6
    )
    assert erasing.area_under(deletion[0].numpy()) == pytest.approx(0.5)
    assert erasing.area_under(np.array([0, 1, 1])) == 0.75 and erasing.area_under(np.array([1, 0])) == 0.5


def test_tiny_images_are_blurred_by_what_fits():
    assert erasing.blurred(picture(2, size=2)).shape == (3, 3, 2, 2)
    assert torch.equal(erasing.blurred(torch.ones(1, 3, 1, 1)), torch.ones(1, 3, 1, 1))
    dot = torch.zeros(1, 1, 31, 31)
    dot[..., 15, 15] = 1
    assert (erasing.blurred(dot) > 0).sum() == 121


def toy_model(images):
    """Two classes by the sign of a sum that depends on every pixel."""
    value = images.flatten(1) @ torch.linspace(-1, 1, images[0].numel())
    return SimpleNamespace(probs=torch.stack([value, -value], dim=1).softmax(dim=1))


def test_what_remove_and_classify_adds_up_equals_a_loop_over_images_draws_and_k():
    images = picture(3, count=5)
    labels = torch.tensor([0, 1, 1, 0, 1])
    maps = torch.randint(0, 9, (5, 6, 6), generator=torch.Generator().manual_seed(3)).float()  # with ties
    numbers = [4, 0, 7, 2, 9]
    found = erasing.right_highest(toy_model, images, labels, erasing.descending_rank(maps.flatten(1)))
    counts = erasing.random_counts(toy_model, images, labels, numbers, seed=11, repeats=3)
    topk = []
    random = []
    for image, one, label, number in zip(images, maps, labels, numbers):
        topk.append([])
        random.append([])
        draws = erasing.descending_rank(erasing.random_scores(11, number, 15, 36)).tolist()
        for i, k in enumerate(erasing.ERASE_K):
            highest = sorted(range(36), key=lambda pixel: (-one.flatten()[pixel], pixel))[: int(k * 36)]
            orders = [sorted(range(36), key=ranks.__getitem__)[: int(k * 36)] for ranks in draws[3 * i : 3 * i + 3]]
            rights = []
            for pixels in (highest, *orders):
                changed = image.clone().flatten(1)
                changed[:, pixels] = 0
                rights.append(toy_model(changed.view_as(image)[None]).probs.argmax().item() == label)
            topk[-1].append(rights[0])
            random[-1].append(sum(rights[1:]))
    assert found.tolist() == topk and counts.tolist() == random
    assert len({*map(tuple, [*topk, *random])}) > 3  # they differ, so that a mix-up would show
    alone = erasing.random_counts(toy_model, images[2:3], labels[2:3], [7], seed=11, repeats=3)
    assert alone.tolist() == random[2:3]  # an image's draws do not depend on its batch
