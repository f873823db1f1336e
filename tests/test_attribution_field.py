"""The methods that other libraries and papers brought: against captum, torchcam and pytorch-grad-cam, and by hand."""

import numpy as np
import pytest
import torch
from test_attribution import (
    FEW,
    Scores,
    classifier,
    close,
    curved,
    grad_cam_library,
    network,
    one_thread,  # noqa: F401 (a fixture)
    photos,
    replay,
    seeded,  # noqa: F401 (a fixture)
)
from torch import nn
from torch.nn import functional

from wsol import attribution
from wsol.attribution import cam_family, deeplift, explain, fullgrad, gradient, layers, masking, perturbation
from wsol.scaling import min_max
from wsol.scoring import erasing

pytestmark = pytest.mark.filterwarnings('ignore:.*does not read')  # FEW has options of all maps


def not_in_place(net):
    """The network without ReLUs in place: captum's hooks do not survive them."""
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return net


# ---- the CAM family


def test_eigen_grad_cam_is_the_librarys_up_to_the_sign_of_the_axis():
    net = classifier(curved())
    x = photos()
    y = torch.tensor([0, 2, 4])
    expected, treat = grad_cam_library('EigenGradCAM', net, x, y, net.last)
    A, G = layers.layer_gradients(net, x, [net.last], y)
    signed = cam_family.principal_map(G[0] * A[0].detach())
    close(explain('eigen_grad_cam', net, x, y), signed.relu(), 1e-6)
    for i in range(3):
        gaps = [np.abs(treat(sign * signed)[i] - expected[i]).max() for sign in (1, -1)]
        assert min(gaps) < 1e-4 < max(gaps)


@pytest.mark.parametrize('channels', [4, 40])
def test_eigen_cam_decomposes_the_smaller_matrix(monkeypatch, channels):
    """An early layer has more locations than channels: 12,544 of 64 in a ResNet's first, too many to decompose."""
    sides = []
    decompose = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, 'eigh', lambda matrix: sides.append(matrix.shape[-1]) or decompose(matrix))
    A = torch.randn(2, channels, 5, 4)
    M = (A - A.mean(dim=(2, 3), keepdim=True)).flatten(2).transpose(1, 2)
    U, S, _ = torch.linalg.svd(M)
    want = U[:, :, 0] * S[:, :1]
    want = want * (want * M.sum(dim=2)).sum(dim=1, keepdim=True).sign()
    close(cam_family.principal_map(A).flatten(1), want, 1e-4)
    assert sides == [min(channels, 20)]


def test_hires_cam_adds_up_to_the_score_of_a_linear_head():
    """Its axiom: with one linear layer behind the features, the map before its ReLU sums to the logit less its bias."""
    net = classifier()
    x = photos()
    A, G = layers.layer_gradients(net, x, [net.last], torch.tensor([0, 2, 4]))
    whole = (G[0] * A[0]).sum(dim=(1, 2, 3)) + net.head.bias[[0, 2, 4]]
    close(whole.detach(), net(x)[range(3), [0, 2, 4]].detach(), 1e-5)


@pytest.mark.parametrize('method', ['plain', 'CALM-EM'])
def test_torchcam_finer_cam(method):
    methods = pytest.importorskip('torchcam.methods', reason='torchcam is not installed (requirements-test.txt)')
    net = not_in_place(classifier(curved()) if method == 'plain' else network(method))
    theirs = net if method == 'plain' else Scores(net)
    x = photos()
    layer = net.last
    with methods.FinerCAM(theirs, layer, input_shape=(3, 16, 16)) as extractor:
        expected = extractor([0, 2, 4], theirs(x), normalized=False)[0].detach()
    close(explain('finer_cam', net, x, [0, 2, 4]), expected)


def test_similar_classes_are_those_of_close_scores():
    scores = torch.tensor([[1.0, 5, 2, 4, 10], [0, 1, 3, 6, 10]])
    found = cam_family.against_similar(scores, torch.tensor([1, 3]))
    assert found[:, [0, 2, 4]].tolist() == scores[:, [0, 2, 4]].tolist()
    assert found[:, 1].tolist() == pytest.approx([5 - 0.6 * (4 + 2 + 1) / 3, 1 - 0.6 * (0 + 3 + 6) / 3])
    assert found[0, 3].item() == pytest.approx(4 - 0.6 * (5 + 2 + 1) / 3)
    assert cam_family.against_similar(scores[:, :1], torch.tensor([0])).tolist() == scores[:, :1].tolist()


def test_torchcam_refine_cam():
    """torchcam's fusion, of maps of 16 and 8 cells a side; its own Grad-CAM++ leaves the denominator of alpha out."""
    methods = pytest.importorskip('torchcam.methods', reason='torchcam is not installed (requirements-test.txt)')
    net = classifier(curved())
    x = photos()
    names = ['relu', 'last']
    maps = [explain('grad_cam_pp', net, x, [0, 2, 4], target_layer=name) for name in names]
    expected = methods.RefineCAM.fuse_cams(maps, normalized=False)
    close(explain('refine_cam', net, x, [0, 2, 4], target_layer=names), expected)


def test_grad_cam_library_refine_cam():
    """At layers of the image's size: the library scales a map again where it has resized it."""
    library = pytest.importorskip('pytorch_grad_cam', reason='grad-cam is not installed (requirements-test.txt)')
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net = not_in_place(classifier(curved(), scale=1e6)).double()
    x = photos().double()
    y = [0, 2, 4]
    expected = library.RefineCAM(net, [net.bn1, net.relu])(x.clone(), [ClassifierOutputTarget(c) for c in y])
    net.zero_grad()
    close(scale_cam_image(explain('refine_cam', net, x, y, target_layer=['bn1', 'relu']).numpy()), expected)


def test_refined_stages_are_the_last_layers_of_the_coarsest_sizes():
    from torchvision.models import resnet18

    net = resnet18().eval()
    found = layers.stage_layers(net, photos(1, 64), 3)
    assert found == [net.layer2, net.layer3, net.layer4]
    x = photos(1, 64)
    assert torch.equal(explain('refine_cam', net, x), explain('refine_cam', net, x, target_layer=found))
    ours = network('CALM-EM')  # its head is no stage, nor is what is as large as the image
    assert layers.stage_layers(ours, photos(), 3) == [ours.last]
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert layers.stage_layers(flat, photos(), 3) == [flat[0]]


def test_torchcam_is_cam():
    """At a layer of the image's size, as for SS-CAM."""
    methods = pytest.importorskip('torchcam.methods', reason='torchcam is not installed (requirements-test.txt)')
    net = not_in_place(classifier())
    x = photos(2, 8)
    for samples in (3, 10):
        with methods.ISCAM(net, 'relu', num_samples=samples) as extractor:
            net(x)
            expected = extractor(class_idx=[1, 3], normalized=False)[0]
        options = {'num_samples': samples} if samples != 10 else {}
        close(explain('is_cam', net, x, [1, 3], target_layer='relu', **options), expected)


@pytest.mark.parametrize('method', ['plain', 'CALM-EM'])
def test_group_cam_in_a_plain_loop(monkeypatch, method):
    """Clusters by scikit-learn; 5 of 8 channels' clusters, a mask at a time."""
    cluster = pytest.importorskip('sklearn.cluster', reason='scikit-learn is not installed (requirements-test.txt)')
    monkeypatch.setattr(perturbation, 'GROUPS', 5)
    net = classifier(curved()) if method == 'plain' else network(method)
    scores = net if method == 'plain' else Scores(net)
    x = photos(2)
    y = [1, 3]
    A, G = (one[0].detach() for one in layers.layer_gradients(net, x, [net.last], torch.tensor(y)))
    blurred = gaussian(x, 31, 50)
    maps = []
    with torch.no_grad():
        for b in range(2):
            parts = G[b].mean(dim=(1, 2))[:, None, None] * A[b]
            labels = cluster.AgglomerativeClustering(5).fit(parts.flatten(1).double().numpy()).labels_
            total = torch.zeros(16, 16)
            for group in range(5):
                one = parts[labels == group].sum(0).relu().numpy()
                one = torch.from_numpy(np.where(one > np.percentile(one, 70), one, 0))
                one = functional.interpolate(one[None, None], (16, 16), mode='bilinear')[0, 0]
                if one.max() == one.min():
                    continue
                one = (one - one.min()) / (one.max() - one.min())
                mixed = one * x[b] + (1 - one) * blurred[b]
                total += (scores(mixed[None]) - scores(blurred[b : b + 1]))[0, y[b]] * one
            maps.append(total.relu())
    close(explain('group_cam', net, x, y), torch.stack(maps))


def gaussian(x, size, sigma):
    """A Gaussian blur with mirrored edges, both axes at once."""
    axis = torch.arange(size) - size // 2
    weight = torch.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * sigma**2))
    padded = functional.pad(x, [size // 2] * 4, mode='reflect')
    return functional.conv2d(padded.flatten(0, 1)[:, None], (weight / weight.sum())[None, None])[:, 0].view_as(x)


def test_few_channels_are_groups_of_their_own():
    A = torch.rand(3, 4, 4)
    assert perturbation.clusters(A, 3).tolist() == perturbation.clusters(A, 32).tolist() == [0, 1, 2]
    assert len(set(perturbation.clusters(torch.cat([A, A + 1e-3]), 3).tolist())) == 3
    assert perturbation.group_masks(A, torch.ones(3)).shape == (3, 4, 4)


# ---- perturbation of the image


@pytest.mark.parametrize('size, window', [((16, 16), 5), ((9, 14), 4), ((7, 5), 9), ((8, 8), 1)])
def test_captum_occlusion(size, window):
    """The window moves by half of itself; what reaches beyond the image is cut."""
    attr = pytest.importorskip('captum.attr', reason='captum is not installed (requirements-test.txt)')
    for net, theirs in ((classifier(), None), (network('CALM-EM'), Scores)):
        x = photos(2, 16)[:, :, : size[0], : size[1]]
        start = 0.3 * torch.randn_like(x)
        side = (min(window, size[0]), min(window, size[1]))
        stride = max(1, window // 2)
        expected = attr.Occlusion(theirs(net) if theirs else net).attribute(
            x, (3, *side), (3, min(stride, side[0]), min(stride, side[1])), start, target=torch.tensor([1, 3])
        )
        found = explain('occlusion', net, x, [1, 3], occlusion_window=window, baseline=start)
        close(found, expected[:, 0].detach())
        close(found, expected[:, 2].detach())


def test_the_squares_of_occlusion():
    assert len(masking.windows((224, 224), 28)) == 15**2
    assert masking.windows((4, 6), 4) == [(0, 0, 4, 4), (0, 2, 4, 6)]
    net = classifier()
    x = photos(1, 24)
    assert torch.equal(explain('occlusion', net, x, 1), explain('occlusion', net, x, 1, occlusion_window=3))


def test_rise_in_a_plain_loop():
    """The same draws, mask by mask: enlarged, shifted, multiplied."""
    net = network('CALM-EM')
    x = photos(2)[:, :, :, :13]
    seeds = [11, 12]
    maps = []
    for b in range(2):
        stream = torch.Generator().manual_seed(seeds[b])
        cells = (torch.rand(5, 7, 7, generator=stream) < 0.5).float()
        shifts = torch.rand(5, 2, generator=stream)
        total = torch.zeros(16, 13)
        for grid, (down, right) in zip(cells, shifts):
            large = functional.interpolate(grid[None, None], (8 * 3, 8 * 2), mode='bilinear')[0, 0]  # cells of 3 x 2
            top, left = int(down * 3), int(right * 2)
            mask = large[top : top + 16, left : left + 13]
            with torch.no_grad():
                total += net((mask * x[b])[None]).probs[0, 2].log() * mask
        maps.append(total / (5 * 0.5))
    for batch_size in (1, 2, 32):
        found = explain('rise', net, x, 2, rise_nr_masks=5, noise_seeds=seeds, batch_size=batch_size)
        close(found, torch.stack(maps), 1e-5)


def test_rise_finds_the_pixel_that_counts():
    """The score is one pixel's value: with many masks the map is highest there and 1/2 of it far away."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 1, bias=False))
    nn.init.zeros_(net[1].weight).data[0, 5 * 16 + 9] = 1
    found = explain('rise', net, torch.ones(1, 1, 16, 16), 0, rise_nr_masks=3000, noise_seeds=[1])[0]
    assert divmod(found.argmax().item(), 16) == (5, 9)
    assert found[15, 1].item() == pytest.approx(0.5, abs=0.05) and found[5, 9] > 0.6


def test_the_defaults_of_the_many():
    assert attribution.Options().rise_nr_masks == 4000 and attribution.Options().occlusion_window is None
    assert (perturbation.IS_STEPS, perturbation.GROUPS, gradient.SHAP_SAMPLES) == (10, 32, 50)
    for wrong in ('rise_nr_masks', 'occlusion_window'):
        with pytest.raises(ValueError, match=f'{wrong} is 0'):
            attribution.Options(**{wrong: 0})


# ---- gradients


@pytest.mark.parametrize('std', [None, 0.2])
@pytest.mark.filterwarnings('ignore:Input Tensor 0 did not already require gradients')
def test_captum_gradient_shap(monkeypatch, std):
    """The same points on the way from the baseline, the same noise."""
    attr = pytest.importorskip('captum.attr', reason='captum is not installed (requirements-test.txt)')
    net = network('CALM-EM')
    x = photos(2)
    start = 0.3 * photos(1)
    positions = np.random.default_rng(0).random(8)
    drawn = []
    normal = torch.normal
    monkeypatch.setattr(np.random, 'uniform', lambda low, high, count: positions[:count])
    monkeypatch.setattr(torch, 'normal', lambda mean, std: drawn.append(normal(mean, std)) or drawn[-1])
    expected = attr.GradientShap(Scores(net)).attribute(
        x, start, n_samples=4, stdevs=std or 0.0, target=torch.tensor([1, 3])
    )
    u = torch.from_numpy(positions).view(2, 4)  # captum: all samples of the first image, then the second's
    places = iter(u.unbind(1))
    monkeypatch.setattr(gradient, 'uniform', lambda shape, streams, like: next(places).view(2, 1, 1, 1).to(like))
    if std:
        replay(monkeypatch, gradient, (drawn[0].view(2, 4, 3, 16, 16) / std).unbind(1))
    found = explain('gradient_shap', net, x, [1, 3], baseline=start, num_samples=4, std=std)
    close(found, expected.detach().sum(1))


def without_neighbours(net):
    """The network with a batch norm, not a ReLU, before its pooling: captum's hooks on a nonlinearity miss the changes
    that one right behind it makes, and its maps no longer add up."""
    order = ['conv1', 'relu', 'bn1', 'pool', *[name for name in net._modules if name not in ('conv1', 'relu', 'bn1')]]
    modules = dict(net._modules)
    net._modules.clear()
    net._modules.update({name: modules[name] for name in dict.fromkeys(order)})
    net.feature_names = [name for name in net._modules if name not in ('conv_last', 'attention')]
    return not_in_place(net)


@pytest.mark.parametrize('kind', ['CAM', 'CALM-ML', 'plain', 'curved'])
@pytest.mark.filterwarnings('ignore')
def test_captum_deep_lift(kind):
    attr = pytest.importorskip('captum.attr', reason='captum is not installed (requirements-test.txt)')
    net = {'plain': classifier, 'curved': lambda: classifier(curved())}.get(kind, lambda: network(kind))()
    if kind == 'CALM-ML':  # its log p is no module: captum's max pooling mixes in the gradient of the reference's log p
        net.pool = nn.AvgPool2d(2)
    theirs = without_neighbours(net) if isinstance(net, nn.Sequential) else Scores(without_neighbours(net))
    x = photos()
    for start in (torch.zeros_like(x), 0.3 * photos()):
        expected = attr.DeepLift(theirs).attribute(x, start, target=torch.tensor([0, 2, 4])).detach().sum(1)
        close(explain('deep_lift', net, x, [0, 2, 4], baseline=start), expected)


def test_deep_lift_is_complete_where_captum_cannot_go():
    """ReLUs in place, used twice, as functions; pooling; GELU: the map's sum is the difference of the scores."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 6, 3)
            self.two = nn.Conv2d(6, 8, 3)
            self.relu = nn.ReLU(inplace=True)
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            x = functional.max_pool2d(self.relu(self.one(x)), 2)
            x = functional.gelu(self.relu(self.two(x)) - 0.3)
            return self.head(x.clamp(min=-9).mean(dim=(2, 3)).tanh().sigmoid_())

    net = Twice()
    x = photos()
    start = 0.5 * photos()
    maps = explain('deep_lift', net, x, [0, 2, 4], baseline=start)
    rise = (net(x) - net(start))[range(3), [0, 2, 4]].detach()
    close(maps.sum(dim=(1, 2)), rise, 1e-4)
    for mode in range(2):  # an equal reference: slopes, not 0 / 0
        same = explain('deep_lift', net, x, 1, baseline=x.roll(mode, 0))
        assert same.isfinite().all() and (same.abs().max() > 0) == bool(mode)


BETWEEN = {
    'torch.max_pool2d': lambda x: torch.max_pool2d(x, 2),
    'overlap': lambda x: functional.max_pool2d(x, 3, 1, 1),
    'adaptive': lambda x: functional.adaptive_max_pool2d(x, (3, 5)),
    'module': nn.AdaptiveMaxPool2d(4),
    'clamp': lambda x: x.clamp(-0.3, 0.4),
    'torch.clamp': lambda x: torch.clamp(x, max=0.2),
    'clamp_': lambda x: (x * 1).clamp_(min=-0.1),
    'clip': lambda x: torch.clip(x, -0.2, 0.2),
    'threshold': nn.Threshold(0.1, -0.5),
    'threshold in place': lambda x: functional.threshold(x * 1, 0.1, 0.3, inplace=True),
    'softshrink': nn.Softshrink(0.2),
    'average': lambda x: functional.adaptive_avg_pool2d(x, 3),
    'whole numbers': lambda x: x[:, torch.tensor([9, -4, 2]).clamp(0, 5)],
}


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('name', BETWEEN)
def test_deep_lift_is_complete_through(name):
    class Through(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3)
            self.head = nn.LazyLinear(5)

        def forward(self, x):
            return self.head(BETWEEN[name](self.conv(x)).flatten(1))

    net = Through().double()
    x = photos().double()
    start = 0.5 * photos().double()
    net(x)
    maps = explain('deep_lift', net, x, [0, 2, 4], baseline=start)
    close(maps.sum(dim=(1, 2)), (net(x) - net(start))[range(3), [0, 2, 4]].detach(), 1e-9)


def test_deep_lift_says_where_its_sum_is_not_the_difference():
    """A maximum of another form, softmax: neither linear nor of one number."""
    for between in (lambda x: x.amax(dim=(2, 3)), lambda x: x.mean(dim=(2, 3)).mul(9).softmax(dim=1)):

        class Through(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 6, 3)
                self.head = nn.Linear(6, 5)

            def forward(self, x, between=between):
                return self.head(between(self.conv(x)))

        with pytest.warns(UserWarning, match='a map does not sum to the score difference'):
            explain('deep_lift', Through(), photos(), 1, baseline=photos())


def test_float16_has_finite_maps_near_those_of_float32():
    """DeepLIFT's smallest difference is 0 there."""
    net = classifier()
    x = 3 * photos(2)
    x[:, :, ::2] = 0  # no difference from the reference
    expected = explain('deep_lift', net, x, 1)
    for name in ('deep_lift', 'group_cam'):
        found = explain(name, net.half(), x.half(), 1)
        assert found.dtype == torch.float16 and found.isfinite().all()
        if name == 'deep_lift':
            assert torch.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0) > 0.98


@pytest.mark.parametrize(
    'name, pixels, size',
    [('smooth_grad_cam_pp', 1, 32), ('smooth_grad_cam_pp', 300, 64), ('grad_cam_pp', 300, 64), ('xgrad_cam', 300, 64)],
)
def test_the_cam_family_computes_in_float32(name, pixels, size):
    """Powers of small gradients underflow in float16, sums of large activations overflow."""
    net = classifier(scale=0.01)
    x = pixels * photos(2, size)
    expected = explain(name, net, x, [1, 2], **FEW)
    found = explain(name, net.half(), x.half(), [1, 2], **FEW)
    assert found.dtype == torch.float16 and found.isfinite().all() and expected.abs().max() > 0
    assert torch.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0) > 0.99


def test_group_cam_blurs_in_float32(monkeypatch):
    kinds = []
    blur = perturbation.functional.gaussian_blur
    monkeypatch.setattr(
        perturbation.functional, 'gaussian_blur', lambda x, *size: kinds.append(x.dtype) or blur(x, *size)
    )
    explain('group_cam', classifier().half(), photos(1).half(), 1)
    erasing.blurred(photos(1).half())
    assert kinds == [torch.float32] * 2


def test_a_multiplier_of_nothing_is_the_slope():
    found = deeplift.over(torch.tensor([6.0, 5]), torch.tensor([3.0, 0]), torch.tensor([7.0, 8]))
    assert found.tolist() == [2, 8]


def test_grad_cam_library_full_grad():
    net = not_in_place(classifier(curved(), scale=1e4))  # far above the library's epsilon
    x = photos()
    y = torch.tensor([0, 2, 4])
    expected, treat = grad_cam_library('FullGrad', net, x, y, net.last)
    close(treat(explain('full_grad', net, x, y)), expected)


def test_the_parts_of_full_grad_add_up_to_the_score():
    """A network of ReLUs is linear around an image: the score is all its gradients times inputs and biases."""
    from torchvision.models import resnet18

    net = resnet18().eval()  # ReLUs in place and used twice, batch norms with statistics of their own
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.bias.data.normal_(0, 0.1)
    x = photos(2, 64).requires_grad_()
    with fullgrad.Biases(lambda G, bias: (bias[:, None, None] * G).sum(dim=1)) as biases:
        score = net(x)[:, 7]
    at_input, *found = torch.autograd.grad(score.sum(), [x, *biases.probes])
    parts = [one.sum(dim=(1, 2)) for one in found]
    total = (x * at_input).sum(dim=(1, 2, 3)) + sum(parts) + net.fc.bias[7]
    assert len(parts) == 20
    close(total.detach(), score.detach(), 1e-4)


def test_the_scaled_layers_of_full_grad_by_the_formula(monkeypatch):
    """A bias of 0 and a channel without a gradient, or with the same everywhere, add nothing."""
    G = torch.randn(2, 5, 4, 6)
    b = torch.tensor([0.5, -3.0, 0.0, 1e-3, 2.0])
    G[0, 1] = 0
    G[1, 4] = -0.7
    close(fullgrad._psi(G, b), min_max((b[:, None, None] * G).abs()).sum(dim=1))
    close(fullgrad._psi(G), min_max(G.abs()).sum(dim=1))
    monkeypatch.setattr(fullgrad, 'CHUNK', 100)  # two channels at a time
    close(fullgrad._psi(G, b), min_max((b[:, None, None] * G).abs()).sum(dim=1))
    assert fullgrad._psi(torch.zeros(1, 2, 3, 3)).eq(0).all()


def test_full_grad_takes_what_the_score_depends_on():
    """CAM's attention is not read; the map is the same without it."""
    net = network('CAM')
    x = photos()
    maps = explain('full_grad', net, x, 1)
    net.attention[0].bias.data += 3
    assert torch.equal(explain('full_grad', net, x, 1), maps)
