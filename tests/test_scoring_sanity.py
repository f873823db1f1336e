"""The scores that ask whether a map means something: against SciPy, captum, pytorch-grad-cam, Quantus, and by hand."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from test_attribution import assert_same_state, classifier, network, one_thread, photos, seeded, state  # noqa: F401
from torch import nn

from wsol import attribution
from wsol.attribution import explain
from wsol.scoring import erasing, imputing, sanity
from wsol.scoring import maps as maps_module


def maps(n=3, side=16, seed=0):
    return np.random.default_rng(seed).normal(size=(n, side, side)).astype(np.float32)


# ---- agreement of two maps


def test_rank_correlation_is_scipys():
    a, b = maps(), maps(seed=1) + 0.5 * maps()
    a[1] = a[1].round()  # ties
    want = [stats.spearmanr(one.ravel(), other.ravel()).statistic for one, other in zip(a, b)]
    np.testing.assert_allclose(sanity.rank_correlation(a, b), want, rtol=1e-9)
    assert sanity.rank_correlation(a, np.exp(a)) == pytest.approx([1, 1, 1])
    assert sanity.rank_correlation(a, -a) == pytest.approx([-1, -1, -1])
    assert sanity.rank_correlation(a, np.ones_like(a)).tolist() == [0, 0, 0]


def test_ssim_window_by_window():
    """Means, variances and covariances with n - 1 of every 7 x 7 window, as scikit-image has them."""
    a = np.random.default_rng(0).random((2, 12, 12))
    b = np.clip(a + 0.2 * np.random.default_rng(1).normal(size=a.shape), 0, 1)
    b[1] = 1 - a[1]
    for one, other, found in zip(a, b, sanity.ssim(a, b)):
        values = []
        for y in range(6):
            for x in range(6):
                p, q = (m[y : y + 7, x : x + 7].ravel() for m in (one, other))
                covariance = np.cov(p, q)
                luminance = (2 * p.mean() * q.mean() + 1e-4) / (p.mean() ** 2 + q.mean() ** 2 + 1e-4)
                values.append(luminance * (2 * covariance[0, 1] + 9e-4) / (np.trace(covariance) + 9e-4))
        assert found == pytest.approx(np.mean(values), rel=1e-9)
    assert sanity.ssim(a, a) == pytest.approx([1, 1])


def test_scikit_image_ssim():
    skimage = pytest.importorskip('skimage.metrics', reason='scikit-image is not installed')
    a = np.random.default_rng(0).random((2, 30, 30))
    b = np.clip(a + 0.2 * np.random.default_rng(1).normal(size=a.shape), 0, 1)
    want = [skimage.structural_similarity(one, other, data_range=1) for one, other in zip(a, b)]
    np.testing.assert_allclose(sanity.ssim(a, b), want, rtol=1e-9)


# ---- random weights


def test_weights_turn_random_from_the_head_down():
    net = network('CALM-EM')
    x = photos(1)
    before = state(net)
    order = sanity.weight_layers(net, x)
    assert order == ['conv1', 'bn1', 'conv2', 'conv_last', 'attention.0']
    copies = sanity.randomized(net, x, 3, seed=5)
    assert_same_state(before, state(net))
    changed = []
    for one in copies:
        weights = dict(one.named_parameters())
        changed.append({name for name, p in net.named_parameters() if not torch.equal(p, weights[name])})
    assert {name.rpartition('.')[0] for name in changed[0]} == {'conv_last', 'attention.0'}
    assert {name.rpartition('.')[0] for name in changed[1]} == {'conv2', 'conv_last', 'attention.0'}
    assert {name.rpartition('.')[0] for name in changed[2]} >= {'conv1', 'conv2', 'conv_last', 'attention.0'}
    assert torch.equal(copies[0].conv_last.weight, copies[2].conv_last.weight)  # one draw a layer
    assert copies[2].bn1.running_mean.eq(0).all() and copies[0].bn1.running_mean.ne(0).any()
    again = sanity.randomized(net, x, 3, seed=5)[2]
    assert all(torch.equal(p, q) for p, q in zip(copies[2].parameters(), again.parameters()))
    other = sanity.randomized(net, x, 3, seed=6)[2]
    assert not torch.equal(other.conv1.weight, again.conv1.weight)
    wide = nn.Sequential(nn.Conv2d(64, 200, 3))
    sanity._draw_weights(wide[0], torch.Generator().manual_seed(1))
    assert wide[0].weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02) and wide[0].bias.eq(0).all()


def test_weights_of_modules_that_never_run_by_themselves_turn_random_too():
    from torchvision.models.vision_transformer import VisionTransformer

    sizes = {'image_size': 16, 'patch_size': 4, 'num_layers': 1, 'num_heads': 2, 'hidden_dim': 8, 'mlp_dim': 8}
    vit = VisionTransformer(**sizes, num_classes=5).eval()
    vit.heads.head.weight.data.normal_()
    before = copy.deepcopy(vit)
    whole = sanity.randomized(vit, photos(1), 1, seed=1)[0]
    same = [name for name, p in before.named_parameters() if torch.equal(p, dict(whole.named_parameters())[name])]
    assert all(name.endswith('bias') or 'ln' in name for name in same), same
    assert 'encoder.layers.encoder_layer_0.self_attention.out_proj.weight' not in same
    assert whole(photos(1)).isfinite().all()


# ---- sensitivity and infidelity


def test_captum_sensitivity():
    metrics = pytest.importorskip('captum.metrics', reason='captum is not installed (requirements-test.txt)')
    net = classifier()
    x = photos(2)
    noise = torch.rand(4, 2, 3, 16, 16)
    draws = iter(noise)

    def make(images):
        return explain('input_grad', net, images, [1, 3]).numpy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution.common, 'uniform', lambda shape, streams, like: next(draws))
        found = sanity.sensitivity(make, x, make(x), None, 4)
    moved = (x[None] + 0.02 * (2 * noise - 1)).transpose(0, 1).flatten(0, 1)  # captum: all draws of an image

    def theirs(images, **_):
        images = images[0] if isinstance(images, tuple) else images
        return (explain('input_grad', net, images, [1] * (len(images) // 2) + [3] * (len(images) // 2)),)

    want = metrics.sensitivity_max(theirs, x, perturb_func=lambda images: moved, n_perturb_samples=4)
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-4)
    dead = np.zeros((2, 4, 4))
    assert sanity.sensitivity(lambda images: dead, x, dead, streams(), 2).tolist() == [0, 0]


def streams(n=2):
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def test_captum_infidelity():
    """The squares that ours draws; captum scales the map by the same factor where it is asked to normalize."""
    metrics = pytest.importorskip('captum.metrics', reason='captum is not installed (requirements-test.txt)')
    net = classifier()
    x = photos(2)
    y = torch.tensor([1, 3])
    attributions = explain('occlusion', net, x, y)
    seen = []

    def drop(changed, rows):
        seen.append(changed.clone())
        with torch.no_grad():
            return (net(x) - 0)[rows, y[rows]] - net(changed)[range(len(rows)), y[rows]]

    found = sanity.infidelity(drop, x, attributions.numpy(), streams(), 6, batch_size=5)
    changed = torch.cat(seen)  # all draws of an image, then the next image's
    removed = (changed != x.repeat_interleave(6, dim=0)).float()
    assert removed.mean(dim=(1, 2, 3)).tolist() == pytest.approx([4 / 256] * 12)
    want = metrics.infidelity(
        net, lambda images: (removed, changed), x, attributions[:, None].expand_as(x) / 3, target=y,
        n_perturb_samples=6, normalize=True,
    )  # fmt: skip
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-3)
    scaled = sanity.infidelity(drop, x, 7 * attributions.numpy(), streams(), 6, batch_size=32)
    np.testing.assert_allclose(scaled, found, rtol=1e-4)


def test_infidelity_removes_squares_everywhere_equally_often():
    """Of an image that is not square: every corner up to the last row and column, a whole square each time."""
    height, width, draws = 18, 24, 4000
    side = 2  # an eighth of the shorter side
    places = []

    def drop(changed, rows):
        holes = changed == 0
        assert (holes.sum(dim=(1, 2, 3)) == 3 * side**2).all() and (holes.amax(dim=1) == holes.amin(dim=1)).all()
        places.extend(holes[:, 0].flatten(1).int().argmax(dim=1).tolist())  # the first pixel of each
        return torch.zeros(len(changed))

    sanity.infidelity(drop, torch.ones(1, 3, height, width), np.zeros((1, height, width)), streams(1), draws, 500)
    counts = np.bincount(places, minlength=height * width).reshape(height, width)
    assert counts[height - side + 1 :].sum() == counts[:, width - side + 1 :].sum() == 0
    reached = counts[: height - side + 1, : width - side + 1]
    assert stats.chisquare(reached.sum(axis=1)).pvalue > 0.01 and stats.chisquare(reached.sum(axis=0)).pvalue > 0.01


# ---- ROAD


def test_grad_cam_library_imputation_and_road(monkeypatch):
    road = pytest.importorskip('pytorch_grad_cam.metrics.road', reason='grad-cam is not installed')
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x = photos(2)
    missing = np.random.default_rng(2).random((16, 16)) < 0.6
    missing[:3, :4] = True  # a corner too
    want = road.NoisyLinearImputer(noise=0)(x[0], torch.from_numpy(~missing).float())
    np.testing.assert_allclose(imputing.impute(x[0].numpy(), missing), want.numpy(), rtol=1e-4, atol=1e-5)

    class Probabilities(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = classifier()

        def forward(self, images):
            return self.net(images).softmax(dim=1)

    net = Probabilities().eval()
    y = torch.tensor([1, 3])
    scores = maps(2)
    monkeypatch.setattr(torch, 'randn_like', torch.zeros_like)  # the library's noise
    monkeypatch.setattr(imputing, 'NOISE', 0)
    targets = [ClassifierOutputTarget(int(c)) for c in y]
    want = road.ROADCombined([20, 40, 60, 80])(x, scores, targets, net)
    rank = erasing.descending_rank(torch.from_numpy(scores).flatten(1))

    def score(images, labels):
        with torch.no_grad():
            return net(images).gather(1, labels[:, None])[:, 0]

    for batch_size in (3, 32):
        found = imputing.road(score, x, y, rank, streams(), batch_size)
        np.testing.assert_allclose(found.numpy(), want, atol=2e-6)
    assert np.abs(want).max() > 1e-4


def test_an_imputed_pixel_is_the_mean_of_its_neighbours():
    image = np.arange(9.0).reshape(1, 3, 3)
    missing = np.zeros((3, 3), bool)
    missing[1, 1] = True
    image[0, 1, 1] = 99
    assert imputing.impute(image, missing)[0, 1, 1] == pytest.approx(4)
    missing[:] = False
    missing[0, 0] = True  # at a corner: the right, the lower and the diagonal neighbour
    found = imputing.impute(np.arange(9.0).reshape(1, 3, 3), missing)[0, 0, 0]
    assert found == pytest.approx((1 / 6 + 3 / 6 + 4 / 12) / (1 / 6 + 1 / 6 + 1 / 12))


# ---- simplicity


def test_gini_by_pairs():
    a = np.abs(maps(2, 5))
    for one, found in zip(a, sanity.gini(-a)):
        values = one.ravel()
        pairs = np.abs(values[:, None] - values[None]).sum() / (2 * len(values) ** 2 * values.mean())
        assert found == pytest.approx(pairs, rel=1e-6)
    single = np.zeros((1, 10, 10))
    single[0, 3, 4] = 2
    assert sanity.gini(single)[0] == pytest.approx(0.99) and sanity.gini(np.ones((1, 4, 4)))[0] == 0
    assert sanity.gini(np.zeros((1, 4, 4)))[0] == 0


def test_adcc_by_hand():
    a = maps(3)
    other = np.stack([a[0], -a[1], np.zeros_like(a[2])])
    assert sanity.coherency(a, other) == pytest.approx([1, 0, 0])
    mixed = 0.3 * a + maps(3, seed=4)
    want = [(1 + stats.pearsonr(one.ravel(), two.ravel()).statistic) / 2 for one, two in zip(a, mixed)]
    np.testing.assert_allclose(sanity.coherency(a, mixed), want, rtol=1e-5)
    found = sanity.adcc(np.array([0.5, 1, 0]), np.array([0.2, 0, 0.5]), np.array([0.6, 0, 0.5]))
    assert found == pytest.approx([3 / (1 / 0.5 + 1 / 0.8 + 1 / 0.4), 1, 0])


# ---- Quantus, where its definitions agree (docs/evaluating.md says where they do not)


@pytest.fixture
def quantus():
    return pytest.importorskip('quantus', reason='Quantus is not installed (requirements-test.txt)')


def quantus_explains(model, inputs, targets, **_):
    """Quantus' explain_func: input_grad as [B, 1, S, S]."""
    return explain('input_grad', model, torch.as_tensor(inputs), list(map(int, targets))).numpy()[:, None]


def test_quantus_sparseness_and_similarities(quantus):
    a, b = maps(3), maps(3, seed=1)
    found = quantus.Sparseness(disable_warnings=True).evaluate_batch(x_batch=None, a_batch=np.abs(a))
    np.testing.assert_allclose(sanity.gini(a), found, rtol=1e-5)  # it adds 1e-7
    one, other = maps_module.normalize(a, 'minmax'), maps_module.normalize(b, 'minmax')
    np.testing.assert_allclose(sanity.ssim(one, other), quantus.ssim(one, other, batched=True), rtol=1e-5)


def test_quantus_parameter_randomisation(quantus):
    """Its networks, of weights that every layer draws for itself, by our correlation of the absolute values."""
    net = classifier()
    x, y = photos(3), np.array([1, 3, 0])
    metric = quantus.MPRT(disable_warnings=True)
    found = metric(net, x.numpy(), y, explain_func=quantus_explains)
    native = quantus_explains(net, x, y)[:, 0]
    cascade = quantus.helpers.model.pytorch_model.PyTorchModel(net, channel_first=True).get_random_layer_generator()
    checked = []
    for name, other in cascade:
        want = sanity.rank_correlation(np.abs(native), np.abs(quantus_explains(other, x, y)[:, 0]))
        np.testing.assert_allclose(found[name], want, atol=1e-6)
        checked.append(name)
    assert len(checked) > 1 and np.abs(want).max() < 0.9


def test_quantus_max_sensitivity(quantus):
    net = classifier()
    x, y = photos(2), np.array([1, 3])
    noise = torch.rand(3, 2, 3, 16, 16)
    draws, theirs = iter(noise), iter(noise)

    def move(arr, **_):
        return arr + 0.02 * (2 * next(theirs).flatten(1).numpy() - 1)

    metric = quantus.MaxSensitivity(nr_samples=3, perturb_func=move, disable_warnings=True)
    want = metric(net, x.numpy(), y, explain_func=quantus_explains)

    def make(images):
        return quantus_explains(net, images, y)[:, 0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution.common, 'uniform', lambda shape, streams, like: next(draws))
        found = sanity.sensitivity(make, x, make(x), None, 3)
    np.testing.assert_allclose(found, want, rtol=1e-4)


def test_quantus_imputation(quantus):
    x = photos(1)[0].numpy()
    missing = np.random.default_rng(2).random((16, 16)) < 0.6
    want = quantus.noisy_linear_imputation(x, np.flatnonzero(missing), noise=0)
    np.testing.assert_allclose(imputing.impute(x, missing), want, rtol=1e-4, atol=1e-5)
