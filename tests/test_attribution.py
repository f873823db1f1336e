"""Attribution methods against captum, torchcam and pytorch-grad-cam, by hand on small cases, and the manners they
share."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from wsol import attribution, calm
from wsol.attribution import MAPS, Options, cam_family, common, explain, gradient, interaction, layers, perturbation
from wsol.network import Network

READOUTS = [name for name in MAPS if name in attribution.READOUTS or name in attribution.SUPERCLASS_READOUTS]
POST_HOC = [name for name in MAPS if name not in READOUTS]
AT_THE_INPUT = [
    'input_grad',
    'smooth_grad',
    'smooth_grad_square',
    'var_grad',
    'integrated_grad',
    'integrated_gradients',
    'guided_backprop',
    'gradient_shap',
    'deep_lift',
    'full_grad',
    'group_cam',
    'rise',
    'occlusion',
]
NOISY = ['smooth_grad', 'smooth_grad_square', 'var_grad', 'smooth_grad_cam_pp', 'ss_cam', 'gradient_shap', 'rise']
SEVERAL_PASSES = NOISY + [
    'integrated_grad',
    'integrated_gradients',
    'score_cam',
    'is_cam',
    'group_cam',
    'occlusion',
    'deep_lift',
]
SUPERCLASS = {y: [y, (y + 1) % 5] for y in range(5)}
FEW = {
    'smooth_grad_nr_iter': 3,
    'integrated_grad_nr_iter': 3,
    'rise_nr_masks': 3,
    'num_samples': 2,
    'superclass': SUPERCLASS,
}

pytestmark = pytest.mark.filterwarnings('ignore:.*does not read')  # FEW has options of all maps


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """The nets are small: a second thread waits longer than it works, many times over on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)  # before every other fixture of this file


def backbone(channels=8):
    return OrderedDict(
        conv1=nn.Conv2d(3, 6, 3, padding=1),
        bn1=nn.BatchNorm2d(6),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, channels, 3, padding=1),
        last=nn.ReLU(),
    )


def network(method='CAM', classes=5):
    """A small network of this project, 8 x 8 locations for 16 px; its attention is alive and its batch norm has seen
    data."""
    net = Network(nn.Sequential(backbone()), 8, classes, method)
    nn.init.constant_(net.attention[0].bias, 0.1)
    net.conv_last.weight.data *= 5
    net.train()(torch.randn(8, 3, 16, 16))
    return net.eval()


def classifier(head=None, classes=5, scale=1):
    """A plain classifier with logits [B, C]: positive ones, so that dividing by the score keeps its sign.

    A large scale puts the gradients far above the epsilons that the libraries add in Grad-CAM++ and ours does not.
    """
    head = head or nn.Linear(8, classes)
    net = nn.Sequential(OrderedDict(**backbone(), gap=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=head)).eval()
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    linear.weight.data *= 10 * scale
    linear.bias.data += 20 * scale
    return net


def curved():
    """A head of which the gradient depends on the features but not on the location."""
    return nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 5))


def photos(n=3, size=16):
    return torch.randn(n, 3, size, size)


def close(ours, theirs, tolerance=1e-4):
    """Relative to the largest value of the reference, which must not be all zero."""
    ours = torch.as_tensor(ours).double()
    theirs = torch.as_tensor(theirs).double()
    assert ours.shape == theirs.shape and theirs.abs().max() > 0
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


class Scores(nn.Module):
    """A network of this project as the libraries want it: images -> [B, C]."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).log_score


def replay(monkeypatch, module, noise):
    """Our method draws, in order, the given standard normal tensors [B, ...]."""
    draws = iter(noise)
    monkeypatch.setattr(module, 'standard_normal', lambda shape, streams, like: next(draws).to(like))


class Fixed:
    """In the place of a library's distribution."""

    def __init__(self, draws):
        self.draws = iter(draws)

    def sample(self, size):
        draw = next(self.draws)
        assert draw.shape == size
        return draw


# ---- captum: no rescaling there, so equal to 1e-4 of the largest value


@pytest.fixture(params=['CAM', 'CALM-ML', 'plain'])
def pair(request):
    """(our model, the same model as captum wants it)."""
    net = classifier() if request.param == 'plain' else network(request.param)
    return net, net if request.param == 'plain' else Scores(net)


@pytest.mark.filterwarnings('ignore:Input Tensor 0 did not already require gradients')
def test_captum_gradients(pair):
    attr = pytest.importorskip('captum.attr', reason='captum is not installed (requirements-test.txt)')
    net, theirs = pair
    x = photos()
    y = torch.tensor([0, 2, 4])
    close(explain('input_grad', net, x, y), attr.Saliency(theirs).attribute(x, target=y).amax(1))
    start = 0.3 * photos()
    expected = attr.IntegratedGradients(theirs).attribute(x, start, target=y, n_steps=20)
    close(
        explain('integrated_gradients', net, x, y, baseline=start, integrated_grad_nr_iter=20), expected.detach().sum(1)
    )


@pytest.mark.filterwarnings('ignore')
def test_captum_guided_backprop(pair):
    attr = pytest.importorskip('captum.attr', reason='captum is not installed (requirements-test.txt)')
    net, theirs = pair
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # captum's hooks do not survive it
    x = photos()
    y = torch.tensor([0, 2, 4])
    expected = attr.GuidedBackprop(theirs).attribute(x, target=y).detach()
    close(attribution.guided_gradients(net, x, y), expected)
    close(explain('guided_backprop', net, x, y), expected.abs().amax(1))


def test_guided_backprop_of_functional_and_in_place_relus():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 6, 3)
            self.two = nn.Conv2d(6, 5, 3)

        def forward(self, x):
            return self.two(relu(self.one(x))).mean(dim=(2, 3))

    functional = nn.functional.relu
    forms = [
        nn.ReLU(),
        torch.relu,
        torch.relu_,
        torch.Tensor.relu,
        torch.Tensor.relu_,
        functional,
        nn.ReLU(inplace=True),
        lambda t: functional(t, True),
        lambda t: functional(input=t, inplace=True),
        lambda t: (t.relu_(), t)[1],
    ]
    net = Functional()
    x = photos()
    maps = []
    for relu in forms:  # noqa: B007 (the network below reads it)
        maps.append(attribution.guided_gradients(net, x, 1))
    plain = gradient.image_gradients(net, x, torch.ones(3).long(), (range(3), None))[0]
    assert not torch.allclose(maps[0], plain, atol=0.01 * plain.abs().max())
    for one in maps[1:]:
        close(one, maps[0], 1e-6)


@pytest.mark.parametrize(
    'name, kind', [('smooth_grad', 'smoothgrad'), ('smooth_grad_square', 'smoothgrad_sq'), ('var_grad', 'vargrad')]
)
def test_captum_noise_tunnel(monkeypatch, name, kind):
    """On one channel, where the maximum over the channels is nothing; the noise captum draws is handed to ours."""
    attr = pytest.importorskip('captum.attr', reason='captum is not installed (requirements-test.txt)')
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    x = torch.rand(2, 1, 8, 8)
    drawn = []
    normal = torch.normal
    x[:, 0, 0, 0] = 0  # the range is 1, so the deviation is 1 / smooth_grad_sigma
    x[:, 0, 0, 1] = 1
    monkeypatch.setattr(torch, 'normal', lambda mean, std: drawn.append(normal(mean, std)) or drawn[-1])
    expected = attr.NoiseTunnel(attr.Saliency(net)).attribute(x, nt_type=kind, nt_samples=7, stdevs=0.25, target=2)
    replay(monkeypatch, gradient, (drawn[0].view(2, 7, 1, 8, 8) / 0.25).unbind(1))
    close(explain(name, net, x, 2, smooth_grad_nr_iter=7), expected.detach()[:, 0])


def test_captum_layer_grad_cam(pair):
    attr = pytest.importorskip('captum.attr', reason='captum is not installed (requirements-test.txt)')
    (net, theirs) = pair
    x = photos()
    y = torch.tensor([0, 2, 4])
    for layer in ('last', 'conv2', 'pool'):
        module = net.get_submodule(layer)
        expected = attr.LayerGradCam(theirs, module).attribute(x, target=y, relu_attributions=True)
        close(explain('grad_cam', net, x, y, target_layer=layer), expected.detach()[:, 0])


# ---- torchcam: maps asked for unnormalized, equal to 1e-4


@pytest.mark.parametrize('head, samples', [(curved, 1), (None, 4)])
def test_torchcam_smooth_grad_cam_pp(monkeypatch, head, samples):
    """The weights: torchcam then puts them on the activations of the last noisy copy, ours on those of the image.

    It multiplies with the gradient of the last copy, ours with their mean: the same for one copy and for a linear head.
    Its sum over locations spans G^3 too: the same where a pooled head makes G constant over the locations.
    """
    methods = pytest.importorskip('torchcam.methods', reason='torchcam is not installed (requirements-test.txt)')
    net = classifier(head and head(), scale=100)
    x = photos()
    noise = torch.randn(samples, 3, 3, 16, 16)
    with methods.SmoothGradCAMpp(net, 'last', num_samples=samples, std=0.3) as extractor:
        net(x)
        extractor._distrib = Fixed(0.3 * noise)
        weights = extractor._get_weights([0, 2, 4])[0]
        activation = net[:6](x)
    expected = (weights[:, :, None, None] * activation).sum(1).relu().detach()
    replay(monkeypatch, cam_family, noise)
    close(explain('smooth_grad_cam_pp', net, x, [0, 2, 4], num_samples=samples), expected)


def test_torchcam_ss_cam(monkeypatch):
    """At a layer of the image's size: elsewhere torchcam scales the mask before it resizes it, ours after, as the
    paper."""
    methods = pytest.importorskip('torchcam.methods', reason='torchcam is not installed (requirements-test.txt)')
    net = classifier()
    x = photos(2, 8)
    noise = torch.randn(3, 2, 6, 8, 8)
    with methods.SSCAM(net, 'relu', num_samples=3, std=2.0) as extractor:
        net(x)
        extractor._distrib = Fixed(2 * noise)
        expected = extractor(class_idx=[1, 3], normalized=False)[0]
    replay(monkeypatch, perturbation, noise.flatten(1, 2))
    close(explain('ss_cam', net, x, [1, 3], target_layer='relu', num_samples=3), expected)


# ---- pytorch-grad-cam: its maps are cut at 0, min-max scaled and resized; ours go through the same before they are
# compared


def grad_cam_library(name, net, x, y, layer, prepare=lambda cam: None):
    """(the library's map, a function that treats ours as the library does)."""
    library = pytest.importorskip('pytorch_grad_cam', reason='grad-cam is not installed (requirements-test.txt)')
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(library, name)(model=net, target_layers=[layer]) as cam:
        prepare(cam)
        theirs = cam(x.clone(), [ClassifierOutputTarget(int(c)) for c in y])
    net.zero_grad()
    return theirs, lambda maps: scale_cam_image(scale_cam_image(maps.clamp(min=0).numpy(), tuple(x.shape[:1:-1])))


@pytest.mark.parametrize(
    'name, theirs',
    [
        ('grad_cam', 'GradCAM'),
        ('grad_cam_pp', 'GradCAMPlusPlus'),
        ('layer_cam', 'LayerCAM'),
        ('ablation_cam', 'AblationCAM'),
        ('taylor_cam', 'ShapleyCAM'),
        ('hires_cam', 'HiResCAM'),
        ('xgrad_cam', 'XGradCAM'),
    ],
)
@pytest.mark.parametrize('layer', ['last', 'relu'])
def test_grad_cam_library(name, theirs, layer):
    net = classifier(curved(), scale=1e6).double()
    x = photos().double()
    y = torch.tensor([0, 2, 4])
    net.relu.inplace = False  # the library's hooks do not survive it
    assert net(x).min() > 0  # the library's Ablation-CAM divides by the signed score
    expected, treat = grad_cam_library(theirs, net, x, y, net.get_submodule(layer))
    close(treat(explain(name, net, x, y, target_layer=layer)), expected)


@pytest.mark.parametrize(
    'name, theirs', [('grad_cam', 'GradCAM'), ('grad_cam_pp', 'GradCAMPlusPlus'), ('layer_cam', 'LayerCAM')]
)
def test_grad_cam_library_on_a_resnet(name, theirs):
    from torchvision.models import resnet18

    net = resnet18().eval()
    x = photos(2, 64)
    y = torch.tensor([3, 700])
    net.fc.weight.data *= 1e4  # see classifier()
    expected, treat = grad_cam_library(theirs, net, x, y, net.layer4)
    close(treat(explain(name, net, x, y)), expected)
    assert layers.last_feature_layer(net, x) is net.layer4


def test_grad_cam_library_eigen_cam():
    """The library leaves the sign of the axis to the decomposition, then cuts at 0: one of the two signs must be
    its."""
    net = classifier()
    x = photos()
    expected, treat = grad_cam_library('EigenCAM', net, x, [0, 0, 0], net.last)
    activation = layers.capture(net, x, [net.last])[0][0].detach()
    signed = cam_family.principal_map(activation)
    close(explain('eigen_cam', net, x), signed.relu(), 1e-6)
    assert ((signed * (activation - activation.mean(dim=(2, 3), keepdim=True)).sum(1)).sum(dim=(1, 2)) > 0).all()
    for i in range(3):
        gaps = [np.abs(treat(sign * signed)[i] - expected[i]).max() for sign in (1, -1)]
        assert min(gaps) < 1e-4 < max(gaps)


@pytest.mark.parametrize('layer', ['relu', 'last'])
def test_grad_cam_library_score_cam(monkeypatch, layer):
    """The library resizes masks with aligned corners, ours with pixel centres: the same at the image's size, elsewhere
    ours is given the library's resizing."""
    net = classifier()
    x = photos()
    y = torch.tensor([0, 2, 4])
    net.relu.inplace = False
    aligned = nn.UpsamplingBilinear2d(size=x.shape[2:])
    expected, treat = grad_cam_library('ScoreCAM', net, x, y, net.get_submodule(layer))
    if layer == 'last':
        monkeypatch.setattr(perturbation, 'upsample', lambda maps, size: aligned(maps[:, None])[:, 0])
    close(treat(explain('score_cam', net, x, y, target_layer=layer)), expected)


def test_score_cam_of_several_classes_shares_its_masked_passes():
    net = classifier()
    x = photos()[:2]
    y = torch.tensor([3, 0, 2, 1])
    seen = []
    handle = net.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    together = explain('score_cam', net, x.repeat_interleave(2, dim=0), y, of_image=[7, 7, 4, 4])
    handle.remove()
    assert seen[-1] == 2 * 8  # images times channels, not 4 * 8
    apart = [explain('score_cam', net, x[i // 2][None], int(one)) for i, one in enumerate(y)]
    close(together, torch.cat(apart), 1e-5)


SHARING = [name for name, row in MAPS.items() if row.kind in ('gradient', 'activation') and 'taylor' not in name]


@pytest.mark.parametrize('name', SHARING)
def test_several_classes_of_an_image_share_its_forward_pass(name):
    """And a backward pass takes a class of every image; the maps are those of each class alone."""
    net = network('CALM-EM')
    x = photos(3)
    rows = x[[0, 0, 0, 1, 2, 2, 2]]  # an image's classes follow each other
    y = torch.tensor([3, 0, 2, 4, 1, 1, 0])  # one of them comes twice
    forward, backward = [], []
    handles = [
        net.conv2.register_forward_hook(lambda module, inputs, output: forward.append(len(output))),
        net.conv_last.register_full_backward_hook(lambda module, gradients, _: backward.append(len(gradients[0]))),
    ]
    options = {**FEW, 'noise_seeds': [8, 8, 8, 5, 6, 6, 6], 'of_image': [0, 0, 0, 1, 0, 0, 0], 'batch_size': 8}
    options |= {'target_layer': ['relu', 'last']} if name == 'refine_cam' else {}  # else a pass finds them
    together = explain(name, net, rows, y, **options)
    seeds = options['noise_seeds']
    for handle in handles:
        handle.remove()
    assert set(forward) == {3} and set(backward) <= {3}
    passes = 0 if name == 'eigen_cam' else 3  # the most classes that an image has
    more = name in ('smooth_grad_cam_pp', 'deep_lift')  # a first pass without gradients
    assert len(backward) == passes * (len(forward) - more)
    alone = [
        explain(name, net, rows[i : i + 1], int(one), **{**options, 'noise_seeds': [seeds[i]], 'of_image': None})
        for i, one in enumerate(y)
    ]
    close(together, torch.cat(alone), 1e-4)


def test_what_methods_share_is_of_one_batch():
    net = network('CALM-EM')
    x = photos(3)
    options = {**FEW, 'noise_seeds': [1, 2, 3], 'batch_size': 2}
    names = ['smooth_grad', 'smooth_grad_square', 'var_grad']
    alone = [explain(name, net, x, [3, 0, 2], **options) for name in names]
    passes = []
    handle = net.conv2.register_forward_hook(lambda *_: passes.append(1))
    shared = {}
    together = [explain(name, net, x, [3, 0, 2], **options, shared=shared) for name in names]
    handle.remove()
    assert len(passes) == 3 + 2  # 3 noisy copies of 2 images, then of 1, in passes of at most 2; one method's alone
    assert all(torch.equal(one, other) for one, other in zip(alone, together))
    for images, classes in ((x.flip(0), [3, 0, 2]), (x, [3, 1, 2])):
        with pytest.raises(ValueError, match='other images or classes: give each batch a dict of its own'):
            explain('var_grad', net, images, classes, **options, shared=shared)


def test_equal_images_with_other_baselines_or_noise_are_not_mixed_up():
    net = network('CALM-EM')
    rows = photos(1).expand(2, -1, -1, -1)
    baseline = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    maps = explain('integrated_gradients', net, rows, 2, baseline=baseline, integrated_grad_nr_iter=3)
    alone = [
        explain('integrated_gradients', net, rows[:1], 2, baseline=one, integrated_grad_nr_iter=3) for one in baseline
    ]
    close(maps, torch.cat(alone))
    noisy = explain('smooth_grad', net, rows, 2, noise_seeds=[1, 2], smooth_grad_nr_iter=2)
    assert not torch.allclose(*noisy, rtol=1e-2)
    close(noisy[1:], explain('smooth_grad', net, rows[:1], 2, noise_seeds=[2], smooth_grad_nr_iter=2))


# ---- by hand


def test_linear_model():
    weight = torch.randn(5, 3, 4, 4)
    x = photos(2, 4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    net[1].weight.data = weight.flatten(1)
    w = weight[[1, 3]]
    for name in ('input_grad', 'smooth_grad', 'guided_backprop'):
        close(explain(name, net, x, [1, 3]), w.abs().amax(1), 1e-6)
    close(explain('smooth_grad_square', net, x, [1, 3]), w.abs().amax(1) ** 2, 1e-6)
    assert explain('var_grad', net, x, [1, 3]).abs().max() < 1e-10
    close(explain('integrated_grad', net, x, [1, 3], integrated_grad_nr_iter=4), w.abs().amax(1) * 5 / 4, 1e-6)
    start = photos(1, 4)
    close(explain('integrated_gradients', net, x, [1, 3], baseline=start), (w * (x - start)).sum(1), 1e-5)


def test_released_gradient_rows_in_a_plain_loop():
    net = network('CALM-EM')
    x = photos(2)
    y = torch.tensor([1, 4])

    def saliency(image, label):
        image = image.clone().requires_grad_()
        net(image[None]).log_score[0, label].backward()
        return image.grad.abs().max(dim=0).values

    maps = torch.stack([sum(saliency(x[b] * i / 4, y[b]) for i in range(5)) / 4 for b in range(2)])
    noise = torch.randn(3, 2, 3, 16, 16)
    spans = [image.max() - image.min() for image in x]
    samples = torch.stack(
        [torch.stack([saliency(x[b] + noise[i, b] * spans[b] / 2, y[b]) for b in range(2)]) for i in range(3)]
    )
    net.zero_grad()
    close(explain('integrated_grad', net, x, y, integrated_grad_nr_iter=4), maps)
    expected = {
        'smooth_grad': samples.mean(0),
        'smooth_grad_square': (samples**2).mean(0),
        'var_grad': samples.var(0, correction=0),
    }
    for name, value in expected.items():
        with pytest.MonkeyPatch.context() as patch:
            replay(patch, gradient, noise)
            close(explain(name, net, x, y, smooth_grad_nr_iter=3, smooth_grad_sigma=2), value)


def test_no_noise_is_the_plain_gradient():
    net = network('CALM-ML')
    x = photos()
    plain = explain('input_grad', net, x)
    close(explain('smooth_grad', net, x, smooth_grad_nr_iter=1, smooth_grad_sigma=0), plain, 1e-6)
    assert not torch.allclose(explain('smooth_grad', net, x, smooth_grad_nr_iter=1), plain, rtol=0.01)
    close(explain('smooth_grad_cam_pp', net, x, std=0), explain('grad_cam_pp', net, x))
    close(explain('ss_cam', net, x, std=0, num_samples=1), explain('score_cam', net, x))


@pytest.mark.parametrize(
    'name, module, samples, std, layer',
    [('smooth_grad_cam_pp', cam_family, 4, 0.3, 'last'), ('ss_cam', perturbation, 35, 2.0, 'relu')],
)
def test_default_noise_of_the_smooth_forms(monkeypatch, name, module, samples, std, layer):
    """With a noise of ones: how often it is drawn, and what the network sees of it."""
    net = classifier()
    seen = []
    drawn = []
    net.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))

    def ones(shape, streams, like):
        drawn.append(shape)
        return torch.ones(len(streams), *shape).to(like)

    monkeypatch.setattr(module, 'standard_normal', ones)
    explain(name, net, torch.ones(1, 3, 16, 16), 1, target_layer=layer)
    noisy = torch.stack(seen[1:])  # the first pass is of the image itself
    assert len(drawn) == len(noisy) == samples
    top = 1 + std  # of an image of ones; SS-CAM's masks in [0, 1] get the noise before they multiply it
    low = std if name == 'ss_cam' else top
    assert (noisy.min().item(), noisy.max().item()) == (pytest.approx(low), pytest.approx(top))


ROWS = {  # map: (kind, unit, does it draw noise)
    'vanilla': ('readout', 'class score f', False),
    'vanilla-saliency': ('readout', 'sum of scaled class scores f', False),
    'jointll': ('readout', 'p(y, z | x)', False),
    'gtcond': ('readout', 'p(z | x, y)', False),
    'saliency': ('readout', 'p(z | x)', False),
    'vanilla-superclass': ('readout', 'sum of scaled class scores f', False),
    'jointll-superclass': ('readout', 'sum of p(y, z | x)', False),
    'jointll-superclass-mean': ('readout', 'mean of p(y, z | x)', False),
    'gtcond-superclass': ('readout', 'sum of p(z | x, y)', False),
    'gtcond-superclass-mean': ('readout', 'mean of p(z | x, y)', False),
    'input_grad': ('gradient', '|gradient| of S', False),
    'smooth_grad': ('gradient', '|gradient| of S', True),
    'smooth_grad_square': ('gradient', '(|gradient| of S)²', True),
    'var_grad': ('gradient', 'variance of |gradient| of S', True),
    'integrated_grad': ('gradient', '|gradient| of S', False),
    'integrated_gradients': ('gradient', 'share of S', False),
    'guided_backprop': ('gradient', '|gradient| of S', False),
    'grad_cam': ('activation', 'relevance to S', False),
    'grad_cam_pp': ('activation', 'relevance to S', False),
    'smooth_grad_cam_pp': ('activation', 'relevance to S', True),
    'layer_cam': ('activation', 'relevance to S', False),
    'eigen_cam': ('activation', 'principal component of the activations', False),
    'taylor_cam': ('activation', 'relevance to S', False),
    'score_cam': ('perturbation', 'relevance to S', False),
    'ss_cam': ('perturbation', 'relevance to S', True),
    'ablation_cam': ('perturbation', 'relevance to S', False),
    'gradient_shap': ('gradient', 'share of S', True),
    'deep_lift': ('gradient', 'share of S', False),
    'full_grad': ('gradient', 'relevance to S', False),
    'hires_cam': ('activation', 'relevance to S', False),
    'xgrad_cam': ('activation', 'relevance to S', False),
    'finer_cam': ('activation', 'relevance against similar classes', False),
    'refine_cam': ('activation', 'relevance to S', False),
    'eigen_grad_cam': ('activation', 'principal component of the relevance to S', False),
    'is_cam': ('perturbation', 'relevance to S', False),
    'group_cam': ('perturbation', 'relevance to S', False),
    'rise': ('perturbation', 'mean S where the pixel is seen', True),
    'occlusion': ('perturbation', 'drop of S', False),
}


@pytest.mark.parametrize('name', ROWS)
def test_the_registry_says_of_a_map_what_it_is(name):
    row = MAPS[name]
    assert (row.kind, row.unit.format(scalar='S'), row.noisy) == ROWS[name]
    assert (name in attribution.READOUTS) == (row.kind == 'readout' and 'superclass' not in name)
    assert (name in attribution.SUPERCLASS_READOUTS) == ('superclass' in name)


def test_the_defaults_of_the_options():
    options = Options()
    assert (options.batch_size, options.smooth_grad_nr_iter, options.smooth_grad_sigma) == (32, 50, 4)
    assert options.integrated_grad_nr_iter == 50 and not options.progress
    unset = 'target_layer superclass noise_seeds of_image generator baseline num_samples std shared'
    for name in unset.split():
        assert getattr(options, name) is None
    with pytest.raises(ValueError, match='num_samples is 1.5'):
        Options(num_samples=1.5)
    with pytest.raises(ValueError, match='std is nan'):
        Options(std=float('nan'))
    assert Options(std=0, smooth_grad_sigma=0, num_samples=1).std == 0


def test_grad_cam_is_cam_up_to_its_constant():
    net = network('CAM')
    x = photos()
    y = torch.tensor([0, 2, 4])
    f_y = explain('vanilla', net, x, y) - net.conv_last.bias.detach()[y, None, None]
    A, G = layers.layer_gradients(net, x, [net.last], y)
    assert A[0].is_leaf  # no graph below the layer
    before = cam_family.weighted(A[0], cam_family.grad_cam_weights(G[0])).detach()
    assert before.min() < 0
    close(before, f_y / 64, 1e-5)
    for name in ('grad_cam', 'taylor_cam'):
        close(explain(name, net, x, y), before.relu(), 1e-5)
    close(explain('layer_cam', net, x, y), (net.conv_last.weight[y, :].relu() * A[0]).sum(1).detach() / 64, 1e-5)


@pytest.mark.parametrize('method', ['CAM', 'CALM-EM'])
def test_completeness_of_integrated_gradients(method):
    net = network(method)
    x = photos(2)
    maps, gap = attribution.integrated_gradients_with_gap(
        net, x, None, Options(integrated_grad_nr_iter=100, baseline=0.5)
    )
    y = net(x).probs.argmax(1)
    rise = (net(x).log_score - net(torch.full_like(x, 0.5)).log_score).gather(1, y[:, None])[:, 0].detach()
    close(gap, maps.sum(dim=(1, 2)) - rise)
    assert gap.abs().max() < 0.01 * rise.abs().max()
    coarse = attribution.integrated_gradients_with_gap(net, x, y, Options(integrated_grad_nr_iter=1, baseline=0.5))[1]
    assert coarse.abs().max() > 5 * gap.abs().max()


def test_readouts():
    net = network('CALM-EM')
    x = photos()
    joint = sum(explain('jointll', net, x, y) for y in range(5))
    close(joint, explain('saliency', net, x), 1e-6)
    close(
        explain('jointll-superclass', net, x, 4, superclass=SUPERCLASS),
        explain('jointll', net, x, 4) + explain('jointll', net, x, 0),
        1e-6,
    )
    top = net(x).probs.argmax(1)
    close(explain('gtcond', net, x), explain('gtcond', net, x, top), 1e-6)
    for name in ('jointll', 'gtcond', 'vanilla'):
        one, other = (explain(name, net, x, y) for y in (4, 0))
        if name == 'vanilla':  # each map is scaled to [0, 1] first
            one, other = (attribution.normalize(maps, 'minmax') for maps in (one, other))
        close(explain(f'{name}-superclass', net, x, 4, superclass=SUPERCLASS), one + other, 1e-5)
        if name != 'vanilla':
            close(explain(f'{name}-superclass-mean', net, x, 4, superclass=SUPERCLASS), (one + other) / 2, 1e-5)
    scaled = [attribution.normalize(explain('vanilla', net, x, y), 'minmax') for y in range(5)]
    close(explain('vanilla-saliency', net, x, 2), sum(scaled), 1e-5)
    many = photos(64)
    net.conv_last.bias.data -= net(many).f.mean(dim=(0, 2, 3)).detach()  # no class is ahead of the others
    output = net(many)
    apart = (output.probs.argmax(1) != output.f.mean(dim=(2, 3)).argmax(1)).nonzero()[:, 0]
    assert len(apart) > 0  # the prediction is CALM's own
    predicted = output.probs.argmax(1)[apart]
    close(explain('jointll', net, many[apart]), explain('jointll', net, many[apart], predicted), 1e-6)
    with pytest.raises(ValueError, match='superclass'):
        explain('gtcond-superclass', net, x)
    with pytest.raises(ValueError, match="only for this project's networks"):
        explain('jointll', classifier(), x)


def test_taylor_cam_by_its_whole_hessian():
    net = network('CALM-ML').double()
    x = photos(1, 4).double()
    A = net.forward_features(x).detach()

    def score(a):
        return net.forward_head(a.view_as(A)).log_score[0, 2]

    H = torch.autograd.functional.hessian(score, A.flatten())
    G = torch.autograd.functional.jacobian(score, A.flatten())
    w = (G - H @ A.flatten() / 2).view_as(A).mean(dim=(2, 3))
    close(explain('taylor_cam', net, x, 2), (w[:, :, None, None] * A).sum(1).relu(), 1e-9)
    assert not torch.allclose(explain('taylor_cam', net, x, 2), explain('grad_cam', net, x, 2), rtol=1e-3)


def test_taylor_interaction_of_lfi_cam_does_not_follow_rounding():
    """Its score is homogeneous in F, so every row of A H A adds up to 0: float32 and float64 choose the same place,
    that of the largest first-order share."""
    for seed in range(3):
        torch.manual_seed(seed)
        net = network('LFI-CAM')
        x = photos(3)
        found = []
        for kind in (torch.float32, torch.float64):
            [A], [G] = layers.layer_gradients(
                net.to(kind), x.to(kind), [net.last], torch.tensor([1, 2, 3]), create_graph=True
            )
            assert interaction.interaction_sums(A, G).abs().max() < 1e-6
            found.append(interaction.strongest_location(A, G).tolist())
        want = (A * G).sum(dim=1).abs().flatten(1).argmax(dim=1).tolist()
        assert found == [want, want]


class Quadratic(nn.Module):
    """Two classes over its input, which is its layer `maps`: a linear score, and one with products of locations."""

    def __init__(self, score):
        super().__init__()
        self.maps = nn.Identity()
        self.score = score

    def forward(self, x):
        A = self.maps(x)
        return torch.stack([A.sum(dim=(1, 2, 3)), self.score(A)], dim=1)


def test_taylor_interaction_of_a_quadratic_network_by_hand():
    """S = ab + 5bc + 7a + 2c^2 of one row a, b, c of locations: H has 1 at ab, 5 at bc, 4 at cc."""

    def score(A):
        a, b, c = A[:, 0, 0].unbind(1)
        return a * b + 5 * b * c + 7 * a + 2 * c**2

    net = Quadratic(score)
    x = torch.tensor([[[[1.0, 2, 3]]], [[[2.0, 1, -1]]]])

    def ask(y, at=None, images=x):
        return explain('taylor_interaction', net, images, y, target_layer='maps', at=at).tolist()

    assert ask(1, (0, 0)) == [[[0, 1 * 2, 0]], [[0, 2 * 1, 0]]]  # a b
    assert ask(1, (0, 1)) == [[[1 * 2, 0, 5 * 2 * 3]], [[2 * 1, 0, 5 * 1 * -1]]]  # a b and 5 b c, with their signs
    assert ask(1, [0, 2]) == [[[0, 5 * 2 * 3, 4 * 3 * 3]], [[0, 5 * 1 * -1, 4 * -1 * -1]]]  # 5 b c, 4 c c
    assert ask(0, (0, 1)) == [[[0, 0, 0]], [[0, 0, 0]]]  # a linear score has no interactions
    # The sums of the rows are 2, 32, 66 in the first image, where c has most, and 2, -3, -1 in the second, where b has.
    assert ask(1) == [ask(1, (0, 2))[0], ask(1, (0, 1))[1]]


def test_taylor_interaction_of_channels_by_hand():
    """S = a1 b2 - 3 a2 b1 + a1 a2 of two channels at the locations a, b, one below the other."""

    def score(A):
        (a1, b1), (a2, b2) = (A[:, k, :, 0].unbind(1) for k in range(2))
        return a1 * b2 - 3 * a2 * b1 + a1 * a2

    a1, b1, a2, b2 = 2.0, 3.0, 5.0, 7.0
    x = torch.tensor([[[[a1], [b1]], [[a2], [b2]]]])
    pair = a1 * b2 - 3 * a2 * b1
    for at, expected in (((0, 0), [[2 * a1 * a2], [pair]]), ((1, 0), [[pair], [0]])):
        maps = explain('taylor_interaction', Quadratic(score), x, 1, target_layer='maps', at=at)
        assert maps[0].tolist() == expected


def test_taylor_interaction_by_its_whole_hessian():
    net = network('CALM-ML').double()
    x = photos(2, 4).double()
    A = net.forward_features(x).detach()
    channels, height, width = A.shape[1:]
    cells = height * width
    rows = []
    for b in range(2):
        H = torch.autograd.functional.hessian(lambda a: net.forward_head(a[None]).log_score[0, 2], A[b])
        rows.append(
            torch.einsum('kz,kzlw,lw->zw', A[b].flatten(1), H.view(channels, cells, channels, cells), A[b].flatten(1))
        )
    rows = torch.stack(rows)  # [B, HW, HW]
    for z in range(cells):
        maps = explain('taylor_interaction', net, x, 2, at=divmod(z, width))
        close(maps.flatten(1), rows[:, z], 1e-9)
    most = rows.sum(dim=2).abs().argmax(dim=1)
    close(explain('taylor_interaction', net, x, 2).flatten(1), rows[[0, 1], most], 1e-9)


def test_the_location_of_an_interaction_on_several_layers():
    """A cell of the larger map stands for the cell of the smaller one that holds its centre; the two maps are fused."""
    assert [interaction._cell_number((row, 0), (3, 5), (6, 6)) for row in range(6)] == [0, 0, 5, 5, 10, 10]
    assert [interaction._cell_number((0, column), (2, 2), (3, 3)) for column in range(3)] == [0, 1, 1]
    net = classifier(curved())
    x = photos()
    names = ['relu', 'last']  # 16 x 16 and 8 x 8 cells
    one = [
        explain('taylor_interaction', net, x, 1, target_layer=name, at=at) for name, at in zip(names, [(9, 4), (4, 2)])
    ]
    one = [attribution.upsample(attribution.normalize(maps, 'minmax'), 16) for maps in one]
    close(explain('taylor_interaction', net, x, 1, target_layer=names, at=(9, 4)), torch.maximum(*one), 1e-5)


def test_second_derivatives_through_attention():
    """A transformer's fused attention has none: both Taylor maps take another way through it."""
    from torchvision.models.vision_transformer import VisionTransformer

    sizes = {'image_size': 16, 'patch_size': 4, 'num_layers': 2, 'num_heads': 2, 'hidden_dim': 8, 'mlp_dim': 8}
    vit = VisionTransformer(**sizes, num_classes=5)
    vit.heads.head.weight.data.normal_()
    net = attribution.Classifier(vit, tokens='encoder.layers.encoder_layer_1.ln_1').eval()
    for name in ('taylor_cam', 'taylor_interaction'):
        maps = explain(name, net, photos(2), [0, 3], target_layer='maps')
        assert maps.shape == (2, 4, 4) and maps.isfinite().all() and maps.abs().max() > 0


def test_both_averages_of_smooth_grad_cam_pp_by_hand(monkeypatch):
    """S = a^2 + b over the locations a, b; x = (2, 1) and the noise -1, +1 on a alone: the copies (1, 1) and (3, 1).

    Grad-CAM++ weighs by sum_z relu(G) / (2 + G sum A): G is (2, 1) in the first copy, (6, 1) in the second.
    """
    net = Quadratic(lambda A: A[:, 0, 0, 0] ** 2 + A[:, 0, 0, 1])
    x = torch.tensor([[[[2.0, 1]]]])
    noise = torch.tensor([[[[[-1.0, 0]]]], [[[[1.0, 0]]]]])

    def ask(**options):
        replay(monkeypatch, cam_family, noise)
        return explain('smooth_grad_cam_pp', net, x, 1, target_layer='maps', num_samples=2, std=1, **options)

    first = 2 / (2 + 2 * 2) + 1 / (2 + 1 * 2)
    second = 6 / (2 + 6 * 4) + 1 / (2 + 1 * 4)
    close(
        ask(smooth_average='maps'), torch.tensor([[[(first * 1 + second * 3) / 2, (first * 1 + second * 1) / 2]]]), 1e-6
    )
    G1, G2, G3 = (2 + 6) / 2, (2**2 + 6**2) / 2, (2**3 + 6**3) / 2  # of a; of b they are 1
    w = G1 * G2 / (2 * G2 + G3 * 3) + 1 / (2 + 3)
    close(ask(smooth_average='derivatives'), torch.tensor([[[w * 2, w * 1]]]), 1e-6)
    assert torch.equal(ask(), ask(smooth_average='derivatives'))


def test_the_average_of_maps_is_that_of_grad_cam_pp_on_the_noisy_copies(monkeypatch):
    net = network('CALM-EM')
    x = photos(2)
    noise = torch.randn(3, 2, 3, 16, 16)
    for names in ('last', ['conv2', 'relu']):
        maps = [explain('grad_cam_pp', net, x + 0.5 * one, [1, 4], target_layer=names) for one in noise]
        replay(monkeypatch, cam_family, noise)
        options = {'num_samples': 3, 'std': 0.5, 'smooth_average': 'maps', 'target_layer': names}
        close(explain('smooth_grad_cam_pp', net, x, [1, 4], **options), torch.stack(maps).mean(0), 1e-5)


def test_grad_cam_pp_and_its_smooth_form_by_loops():
    A = torch.rand(2, 3, 4, 4)  # G: two noisy copies
    G = torch.randn(2, 2, 3, 4, 4)

    def weights(g1, g2, g3):
        w = torch.zeros(2, 3)
        for b in range(2):
            for k in range(3):
                for i in range(16):
                    one, two, three = (g[b, k].flatten()[i] for g in (g1, g2, g3))
                    w[b, k] += two / (2 * two + A[b, k].sum() * three) * max(one, 0)
        return w

    close(cam_family.grad_cam_pp_weights(A, G[0]), weights(G[0], G[0] ** 2, G[0] ** 3), 1e-5)
    means = [(G**p).mean(0) for p in (1, 2, 3)]
    close(cam_family.smooth_grad_cam_pp_weights(A, *means), weights(*means), 1e-5)
    zeros = torch.zeros(2, 3, 4, 4)
    assert cam_family.grad_cam_pp_weights(A, zeros).eq(0).all()
    assert cam_family.smooth_grad_cam_pp_weights(A, zeros, zeros, zeros).eq(0).all()
    half = torch.full((1, 1, 2, 2), 0.5)  # its sum is 2: where G is -1 the denominator 2 + G * 2 is 0
    slopes = torch.tensor([[[[-1.0, 1.0], [0.0, 2.0]]]])
    close(cam_family.grad_cam_pp_weights(half, slopes), torch.tensor([[0 + 1 / 4 + 0 + 2 / 6]]), 1e-6)
    tiny = cam_family.grad_cam_pp_weights(A, torch.full((2, 3, 4, 4), 1e-30))  # its square underflows
    close(tiny, torch.full((2, 3), 16 * 0.5e-30), 1e-5)


@pytest.mark.parametrize('method', ['CAM', 'CALM-EM', 'CALM-ML'])
def test_ablation_of_the_head_is_the_whole_rerun(method):
    net = network(method)
    x = photos()
    y = torch.tensor([0, 2, 4])
    with torch.no_grad():
        A, scores = layers.capture(net, x, [net.last])
        fast = perturbation.ablated_head_scores(net, A[0], y, Options(batch_size=7))
        whole = torch.zeros(3, 8)
        for k in range(8):
            F = net.forward_features(x)
            F[:, k] = 0
            whole[:, k] = net.forward_head(F).log_score.gather(1, y[:, None])[:, 0]
        again = perturbation.ablated_scores(net, x, net.last, A[0], y, Options(batch_size=7))
    close(fast, whole, 1e-5)
    close(again, whole, 1e-5)
    s = scores.gather(1, y[:, None])
    close(explain('ablation_cam', net, x, y), (((s - whole) / s.abs())[:, :, None, None] * A[0]).sum(1).relu())


def test_several_layers_are_scaled_resized_and_their_maximum_taken():
    net = classifier()
    x = photos()
    names = ['relu', 'last']
    one = [explain('layer_cam', net, x, 1, target_layer=name) for name in names]
    one = [attribution.upsample(attribution.normalize(maps, 'minmax'), 16) for maps in one]
    for layer in (names, [net.relu, net.last], ('last', net.relu)):
        close(explain('layer_cam', net, x, 1, target_layer=layer), torch.maximum(*one), 1e-6)
    for name in ('grad_cam', 'score_cam', 'ablation_cam', 'taylor_cam', 'smooth_grad_cam_pp'):
        maps = explain(name, net, x, 1, target_layer=names, num_samples=2)
        assert maps.shape == (3, 16, 16) and maps.max() == 1


def test_normalize_and_upsample():
    cv2 = pytest.importorskip('cv2')
    maps = torch.tensor([[[1.0, 3.0], [-1.0, 2.0]], [[2.0, 2.0], [2.0, 2.0]], [[1.0, float('nan')], [0.0, 2.0]]])
    zero = [[0, 0], [0, 0]]
    for kind, first in {
        'max': [[1 / 3, 1], [0, 2 / 3]],
        'minmax': [[0.5, 1], [0, 0.75]],
        'clipping': [[1, 1], [0, 1]],
    }.items():
        close(attribution.normalize(maps, kind), torch.tensor([first, zero, zero]), 1e-6)
    assert attribution.normalize(-torch.arange(4.0).view(1, 2, 2), 'max').eq(0).all()
    with pytest.raises(ValueError, match='max, minmax, clipping'):
        attribution.normalize(maps, 'softmax')
    small = torch.randn(2, 7, 7)
    close(attribution.upsample(small, (20, 31)), np.stack([cv2.resize(m.numpy(), (31, 20)) for m in small]), 1e-5)


def test_log_p_y_given_x():
    f = (3 * torch.randn(4, 5, 3, 3)).double().requires_grad_()
    h = torch.rand(4, 1, 3, 3).double()
    h[0, 0, 0] = 0  # some locations dead; all of them
    h[1] = 0
    close(calm.log_p_y_given_x(f, h).detach(), calm.p_y_given_x(f, h).log().detach(), 1e-12)
    h.requires_grad_()
    calm.log_p_y_given_x(f, h).sum().backward()
    assert f.grad.isfinite().all() and h.grad.isfinite().all() and h.grad[1].eq(0).all() and h.grad[0, 0, 0].eq(0).all()
    few = f[2:3, :3, :2], h[2:3, :, :2].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: calm.log_p_y_given_x(a, b.exp()), few)
    far = calm.log_p_y_given_x(
        300 * torch.eye(5)[None, :, :1, None], torch.ones(1, 1, 1, 1)
    )  # p(y|x) itself underflows
    close(far, torch.tensor([[0.0, -300, -300, -300, -300]]), 1e-6)


# ---- manners


@pytest.mark.parametrize('name', list(MAPS))
def test_target_and_batch_conventions(name):
    net = network('CALM-EM')
    x = photos(4)

    def ask(images, y, **more):
        return explain(name, net, images, y, generator=torch.Generator().manual_seed(1), **{**FEW, **more})

    maps = ask(x, [1, 3, 0, 2])
    assert maps.shape == ((4, 16, 16) if name in AT_THE_INPUT else (4, 8, 8))
    assert maps.isfinite().all() and maps.abs().max() > 0 and not maps.requires_grad
    same = {'rtol': 1e-3, 'atol': 1e-4 * maps.abs().max().item()}
    assert torch.allclose(ask(x, torch.tensor([1, 3, 0, 2])), maps, **same)
    assert torch.allclose(ask(x, [1, 3, 0, 2], batch_size=3), maps, **same)
    assert torch.allclose(ask(x[:1], 1), maps[:1], **same)
    assert torch.allclose(ask(x[:2], None), ask(x[:2], net(x[:2]).probs.argmax(1)), **same)
    with torch.no_grad():
        assert torch.allclose(ask(x, [1, 3, 0, 2]), maps, **same)
    with torch.inference_mode():
        assert torch.allclose(ask(x * 1, torch.tensor([1, 3, 0, 2])), maps, **same)
    for wrong in ([1, 2, 3], torch.tensor([1]), [[1, 2, 3, 4]], [0.5] * 4, [True] * 4, 5, -1, [0, 1, 2, 5]):
        with pytest.raises(ValueError, match='target'):
            ask(x, wrong)
    if name not in ('saliency', 'vanilla-saliency', 'eigen_cam'):
        assert not torch.allclose(ask(x, 1)[1:], maps[1:], **same)


@pytest.mark.parametrize('name', POST_HOC)
def test_bf16_and_float64(name):
    for dtype in (torch.bfloat16, torch.float64):
        net = network('CALM-EM').to(dtype)
        x = photos(1).to(dtype).expand(5, -1, -1, -1)
        maps = explain(name, net, x, range(5), **FEW)  # of some class, every map has something to show
        assert maps.dtype == dtype and maps.isfinite().all() and maps.abs().max() > 0


def state(net):
    """Everything a method could leave behind."""
    modules = list(net.modules())
    dictionaries = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    values = {name: value.clone() for name, value in net.state_dict().items()}
    grads = [p.grad if p.grad is None else p.grad.clone() for p in net.parameters()]
    hooks = [[len(getattr(m, d)) for d in dictionaries] for m in modules]
    return (
        (
            [id(m) for m in modules],
            [m.training for m in modules],
            hooks,
            [sorted(vars(m)) for m in modules],
            [p.requires_grad for p in net.parameters()],
            torch.is_grad_enabled(),
        ),
        values,
        grads,
    )


def assert_same_state(before, after):
    assert before[0] == after[0]
    assert all(torch.equal(value, after[1][name]) for name, value in before[1].items())
    assert all(a is b if a is None else torch.equal(a, b) for a, b in zip(before[2], after[2]))


class Breaks(nn.Module):
    """Hands its input on `limit` times, then raises."""

    limit = None
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        if self.limit is not None and self.calls > self.limit:
            raise ArithmeticError('broken')
        return x


@pytest.mark.parametrize('name', POST_HOC)
def test_nothing_is_left_behind(monkeypatch, name):
    net = classifier()
    x = photos()
    net.add_module('breaks', Breaks())
    net.train()
    net.pool.eval()  # the batch norm stays in train mode: it must not learn from explaining
    list(net.parameters())[0].grad = torch.ones(6, 3, 3, 3)
    list(net.parameters())[1].requires_grad = False
    before = state(net)
    pixels = x.clone()
    explain(name, net, x, [0, 1, 2], target_layer='last', batch_size=3, **FEW)
    assert_same_state(before, state(net))
    assert torch.equal(x, pixels) and not x.requires_grad and x.grad is None
    for limit in (0, 1) if name in SEVERAL_PASSES else (0,):
        monkeypatch.setattr(Breaks, 'limit', limit)
        monkeypatch.setattr(Breaks, 'calls', 0)
        with pytest.raises(ArithmeticError), torch.no_grad():
            explain(name, net, x, [0, 1, 2], target_layer='last', batch_size=3, **FEW)
        assert_same_state(before, state(net))


@pytest.mark.parametrize('name', list(MAPS))
def test_no_pass_is_larger_than_batch_size(name):
    net = network('CALM-EM')
    seen = []
    handle = net.conv_last.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    explain(name, net, photos(5), 1, batch_size=2, **FEW)
    handle.remove()
    assert seen and max(seen) == 2


def test_cost_in_operations():
    """No weight gradients, nothing below the target layer: counted, not timed."""
    net = network('CAM')
    x = photos()

    def operations(run):
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    whole = operations(lambda: net(x))
    head = operations(lambda: net.forward_head(net.forward_features(x))) - operations(lambda: net.forward_features(x))
    attention = 2 * 3 * 64 * 8  # computed forward, but not part of CAM's score
    assert operations(lambda: explain('input_grad', net, x, 1)) == 2 * whole - attention
    for name in ('grad_cam', 'grad_cam_pp', 'layer_cam'):
        assert whole < operations(lambda: explain(name, net, x, 1)) <= whole + 2 * head
    assert operations(lambda: explain('ablation_cam', net, x, 1)) <= whole + 2 * head
    assert operations(lambda: explain('integrated_grad', net, x, 1, integrated_grad_nr_iter=4)) == 5 * (
        2 * whole - attention
    )


def test_wrong_requests():
    net = network()
    x = photos()
    cases = {
        'did you mean.*grad_cam': {'name': 'gradd_cam'},
        'choose one of vanilla, .*ablation_cam': {'name': 'zzz'},
        'did you mean conv2.*choose one of conv1, ': {'target_layer': 'conv3'},
        "unknown target_layer '': choose one of conv1": {'target_layer': ''},
        'not a module of this model': {'target_layer': nn.ReLU()},
        'empty list': {'target_layer': []},
        'contains int': {'target_layer': [3]},
        'baseline of shape': {'name': 'integrated_gradients', 'baseline': torch.zeros(7)},
        'batch_size is 0': {'batch_size': 0},
        'smooth_grad_sigma is -1': {'smooth_grad_sigma': -1},
        "smooth_average is 'both': choose one of derivatives, maps": {'smooth_average': 'both'},
        r'at is \(1, -1\): give \(row, column\)': {'at': (1, -1)},
        'at is 3: give': {'at': 3},
        r'at is \(1, 2, 3\): give': {'at': (1, 2, 3)},
        r'at is \(1, 0.5\): give': {'at': (1, 0.5)},
        'at=8,0 is outside the map: give a row from 0 to 7, a column from 0 to 7': {
            'name': 'taylor_interaction',
            'at': (8, 0),
        },
        'at=0,8 is outside': {'name': 'taylor_interaction', 'at': (0, 8)},
        '2 noise_seeds for 3 images': {'name': 'smooth_grad', 'noise_seeds': [1, 2]},
        '2 of_image for 3 images': {'name': 'grad_cam', 'of_image': [1, 2]},
        'unknown option layer: the options are target_layer, ': {'layer': 'conv2'},
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            explain(**{'name': 'grad_cam', 'model': net, 'images': x, **wrong})
    with pytest.raises(ValueError, match='shape'):
        explain('grad_cam', net, x[0])
    with pytest.raises(ValueError, match='does not depend'):
        explain('grad_cam', net, x, target_layer='attention')
    with pytest.raises(ValueError, match=r'outputs \[.*, not \[B, L, H, W\]'):
        explain('grad_cam', classifier(), x, target_layer='head')
    idle = classifier()
    idle.add_module('head', nn.Sequential(OrderedDict(used=idle.head)))
    idle.gap.add_module('idle', nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match='does not run'):
        explain('layer_cam', idle, x, target_layer='gap.idle')
    with pytest.raises(ValueError, match=r'logits \[B, C\]'):
        explain('grad_cam', nn.Sequential(nn.Conv2d(3, 4, 3)), x, target_layer='0')


def test_options_of_none_are_not_given():
    net = network()
    x = photos()
    unset = dict.fromkeys(('batch_size', 'target_layer', 'num_samples', 'std', 'smooth_grad_nr_iter'))
    close(explain('grad_cam', net, x, 1, **unset), explain('grad_cam', net, x, 1), 1e-9)


def test_activations_come_in_the_order_of_the_layers():
    net = classifier()
    x = photos()
    for names in (['last', 'relu'], ['relu', 'last'], ['last', 'last']):
        found, _ = layers.capture(net, x, [net.get_submodule(name) for name in names])
        assert [A.shape[1] for A in found] == [{'relu': 6, 'last': 8}[name] for name in names]


@pytest.mark.parametrize('name', NOISY)
def test_noise_of_a_generator_is_drawn_for_every_image(name):
    """Of one picture twice the two maps differ; the generator's seed repeats them."""
    net = network('CALM-ML')
    x = photos(1).expand(2, -1, -1, -1)

    def ask(seed):
        return explain(name, net, x, 1, generator=torch.Generator().manual_seed(seed), **FEW)

    first, second = ask(3)
    assert (first - second).abs().max() > 0.01 * first.abs().max()
    close(ask(3), torch.stack([first, second]), 1e-4)
    assert (ask(4)[0] - first).abs().max() > 0.01 * first.abs().max()


def test_a_module_that_runs_twice_counts_with_its_last_call():
    net = classifier()
    x = photos()
    net.last = net.relu  # one in-place ReLU in both places
    A = net.conv2(net.pool(net.bn1(net.conv1(x)).relu())).relu().detach().requires_grad_()
    (G,) = torch.autograd.grad(net.head(A.mean(dim=(2, 3)))[[0, 1, 2], [0, 2, 4]].sum(), A)
    expected = (G.mean(dim=(2, 3), keepdim=True) * A).sum(1).relu().detach()
    close(explain('grad_cam', net, x, [0, 2, 4], target_layer='relu'), expected, 1e-6)


def test_the_last_output_of_a_module_that_runs_twice_is_ablated():
    """Both of its outputs reach the score, and it first runs on other channels."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1), nn.Linear(10, 5)
            self.relu = nn.ReLU(inplace=True)

        def parts(self, x):
            first = self.relu(self.stem(x))
            return first, self.relu(self.conv(first))

        def scores(self, first, second):
            return self.head(torch.cat([first, second], dim=1).mean(dim=(2, 3)))

        def forward(self, x):
            return self.scores(*self.parts(x))

    net = Twice().eval()
    x = photos(2)
    with torch.no_grad():
        first, A = net.parts(x)
        score = net.scores(first, A)[:, 1]
        without = [net.scores(first, A * (torch.arange(4) != k)[:, None, None])[:, 1] for k in range(4)]
        w = (score[:, None] - torch.stack(without, dim=1)) / score.abs()[:, None]
        want = torch.einsum('bk,bkhw->bhw', w, A).relu()
    assert want.max() > 0
    close(explain('ablation_cam', net, x, 1, target_layer='relu'), want, 1e-4)


def test_explained_scalar():
    net = network('CALM-EM')
    x = photos()
    close(common.scores_of(net, x).detach(), net(x).probs.log().detach(), 1e-5)
    plain = classifier()
    close(common.scores_of(plain, x).detach(), plain(x).detach(), 1e-6)
