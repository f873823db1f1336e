"""The library's own door: an Explainer on what people have at hand, any number explained, names, options, overlays."""

import doctest
import os
import threading
import time
import warnings
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from torch import nn
from torchvision import models

import wsol
from wsol import attribution
from wsol.attribution import MAPS, Explainer, Options, common, contrast, explain, explaining, options, registry
from wsol.errors import UserError
from wsol.preprocessing import PAPER, photograph_transform

CAT = os.path.join(ROOT, 'docs', 'photographs', 'cat.jpg')
NAMES = ['ant', 'bee', 'cat', 'dog', 'tiger cat']


def classifier(classes=5):
    """A small classifier of photographs of 32 pixels, with names for its classes; 16 x 16 locations."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)).eval()
    net.image_size, net.class_names = 32, NAMES
    return net


@pytest.fixture
def net():
    return classifier()


@pytest.fixture
def passes(net):
    """A list that grows by the number of images of each pass."""
    seen = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    return seen


@pytest.fixture
def cat():
    with Image.open(CAT) as image:
        return image.convert('RGB')


def test_whatever_people_have_at_hand_is_the_same_image(net, cat):
    explainer = Explainer(net)
    tensor = photograph_transform(32, PAPER)(cat)
    want = explain('grad_cam', net, tensor[None], 4)
    pixels = np.asarray(cat)
    bytes_of = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for image in (CAT, cat, pixels, pixels / 255, bytes_of, tensor, tensor[None], [CAT]):
        result = explainer(image, target='tiger cat')
        torch.testing.assert_close(result.maps, want)
        assert result.targets.tolist() == [4] and result.logits.shape == result.probs.shape == (1, 5)
    several = explainer([CAT, cat, pixels], target=['bee', 3, 'Tiger_Cat'])
    assert several.maps.shape == (3, 16, 16) and several.targets.tolist() == [1, 3, 4]
    assert explainer(np.stack([pixels, pixels])).maps.shape == (2, 16, 16)
    assert explainer(tensor).pictures[0].size == (32, 32) and explainer(CAT).pictures[0].size == cat.size


def test_a_photograph_for_a_model_in_half_or_double_precision(net):
    want = Explainer(net)(CAT, 4).maps
    for dtype in (torch.float64, torch.bfloat16):
        result = Explainer(net.to(dtype))(CAT, 4)
        assert result.maps.dtype == dtype and result.overlay().size == result.pictures[0].size
        torch.testing.assert_close(result.maps.float(), want, rtol=0.05, atol=0.05 * float(want.max()))


def test_class_names_of_another_model_are_refused(net):
    with pytest.raises(UserError, match='2 class_names for a model of 5 classes: give one name a class'):
        Explainer(net, class_names=NAMES[:2])(CAT, 'bee')
    net.class_names = None
    with pytest.raises(UserError, match="class 'bee': no class names are known .*class_names=.: give a number"):
        Explainer(net)(CAT, 'bee')


@pytest.mark.parametrize('method', ['jointll', 'gtcond-superclass', 'saliency'])
def test_maps_that_mean_nothing_on_a_head_come_with_a_warning(method, recwarn):
    x = torch.randn(1, 3, 32, 32)
    sets = {'superclass': {0: [0, 1]}} if 'superclass' in method else {}
    explain(method, wsol.build_model('vgg_tiny', 'CALM-EM', 4).eval(), x, 0, **sets)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=f'the map {method} means nothing on CAM: .*its own map is vanilla'):
        explain(method, wsol.build_model('vgg_tiny', 'CAM', 4).eval(), x, 0, **sets)


@pytest.mark.parametrize('process', ['grad_cam', 'integrated_gradients', 'score_cam', 'eigen_cam', 'occlusion', 'rise'])
def test_logits_are_those_of_the_image_and_maps_those_of_explain(net, process):
    x = torch.randn(3, 3, 16, 16)
    few = {} if process != 'rise' else {'rise_nr_masks': 5, 'noise_seeds': [1, 2, 3]}
    result = Explainer(net, process)(x, target=[0, 3, 1], **few)
    with torch.no_grad():
        torch.testing.assert_close(result.logits, net(x))
    torch.testing.assert_close(result.probs, result.logits.softmax(dim=1))
    torch.testing.assert_close(result.maps, explain(process, net, x, [0, 3, 1], **few))
    assert Explainer(net, process)(x, **few).targets.equal(result.logits.argmax(dim=1))


def test_one_pass_serves_maps_and_logits(net, passes):
    x = torch.randn(3, 3, 16, 16)
    explainer = Explainer(net)
    explainer(x)
    assert passes == [1, 3]  # the first finds the layer
    for target in (None, 2, 'bee'):
        explainer(x, target)
    assert passes == [1, 3, 3, 3, 3]
    passes.clear()
    Explainer(net, target_layer='3', batch_size=2)(x)
    assert passes == [2, 1]
    passes.clear()
    explainer(x, 'cat', contrast='bee')
    assert passes == [3]
    passes.clear()
    found = explainer(x, '@2', contrast='@1')
    assert passes == [3, 3]  # the ranks come first
    assert found.targets.equal(found.logits.topk(2).indices[:, 1])
    assert not net._forward_pre_hooks and len(net._forward_hooks) == 1


def test_threads_that_share_a_model_take_turns(net):
    """Else the hooks of one would take the other's activations, and its end would change the mode."""
    x = torch.randn(4, 3, 16, 16)
    want = explain('grad_cam', net, x, 1, contrast=2)
    within = []
    together = []

    def note(module, inputs):
        within.append(threading.get_ident())
        time.sleep(0.005)
        together.append({*within})

    net.register_forward_pre_hook(note)
    net.register_forward_hook(lambda *_: within.remove(threading.get_ident()))
    with ThreadPoolExecutor(4) as threads:
        maps = [*threads.map(lambda one: explain('grad_cam', net, one[None], 1, contrast=2), x)]
    torch.testing.assert_close(torch.cat(maps), want)
    assert all(len(running) == 1 for running in together)


def test_images_that_no_pass_shows_as_they_are(net):
    """A model that normalises its input in place, and an image with NaN."""

    class InPlace(nn.Module):
        def forward(self, x):
            return net(x.sub_(0.5).div_(0.2))

    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        want = net((x - 0.5) / 0.2)
    torch.testing.assert_close(Explainer(InPlace(), 'input_grad', batch_size=2)(x, 1).logits, want)
    x[1, 0, 0, 0] = torch.nan
    assert Explainer(net, 'input_grad')(x, 1).logits.isnan().all(dim=1).tolist() == [False, True, False]


def test_a_model_in_train_mode_is_explained_in_eval_mode(net):
    """The pass that finds the layer, too: it changes no statistics, and its logits are not those of batch norm and
    dropout at work."""
    model = nn.Sequential(*net[:2], nn.BatchNorm2d(6), *net[2:6], nn.Dropout(), net[6]).eval()
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        want = model(x)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.testing.assert_close(Explainer(model.train())(x, 1).logits, want)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_explainer_in_inference_mode():
    """To find the layer of a transformer takes gradients."""
    size = {'image_size': 16, 'patch_size': 8, 'hidden_dim': 8, 'mlp_dim': 8, 'num_classes': 5}
    vit = models.VisionTransformer(num_layers=2, num_heads=1, **size)
    nn.init.normal_(vit.heads.head.weight)
    x = torch.randn(2, 3, 16, 16)
    want = Explainer(vit)(x, 1).maps
    with torch.inference_mode():
        torch.testing.assert_close(Explainer(vit)(x.clone(), 1).maps, want)


@pytest.mark.parametrize('head', ['CAM', 'CALM-EM'])
def test_networks_of_the_project_say_what_they_predict(head):
    net = wsol.build_model('vgg_tiny', head, 4).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want = net(x)
        for process, against in ((net.head.own_map, None), ('grad_cam', 2), ('ablation_cam', None)):
            result = Explainer(net, process)(x, 1, contrast=against)
            torch.testing.assert_close(result.probs, want.probs)
            torch.testing.assert_close(result.logits, want.log_score)

    def one(output):
        return output.log_score[:, 1]

    for process in ('grad_cam', 'ablation_cam', 'input_grad'):
        of_function = explain(process, net, x, one)
        torch.testing.assert_close(of_function, explain(process, net, x, 1))


# ---- any number


def peer_map(model, layer, x, targets):
    """pytorch-grad-cam's Grad-CAM before it is scaled and resized, its ReLU included."""
    grad_cam = pytest.importorskip('pytorch_grad_cam', reason='grad-cam is not installed')
    with grad_cam.GradCAM(model, [layer]) as theirs:
        theirs(x, targets)
        A, G = (
            getattr(theirs.activations_and_grads, name)[0].detach().numpy() for name in ('activations', 'gradients')
        )
        return torch.as_tensor(theirs.get_cam_image(x, layer, targets, A, G, False).clip(min=0))


def test_a_class_inside_a_region_of_a_segmentation(monkeypatch):
    targets = pytest.importorskip('pytorch_grad_cam.utils.model_targets', reason='grad-cam is not installed')
    torch.manual_seed(0)
    net = models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=4).eval()
    x = torch.randn(1, 3, 48, 48)
    region = torch.zeros(48, 48)
    region[10:30, 5:25] = 1

    class Out(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)['out']

    want = peer_map(Out(), net.backbone.layer4, x, [targets.SemanticSegmentationTarget(2, region.numpy())])
    explainer = Explainer(net, 'GradCAM', target_layer='backbone.layer4')
    result = explainer(x, target=lambda output: (output['out'][:, 2] * region).sum(dim=(1, 2)))
    torch.testing.assert_close(result.maps, want, rtol=1e-3, atol=1e-4 * float(want.max()))
    assert want.max() > 0 and (result.logits, result.probs, result.targets) == (None, None, None)


def test_the_similarity_of_two_images_features(net):
    features = net[:6]
    x, other = torch.randn(2, 1, 3, 16, 16)
    with torch.no_grad():
        reference = features(other)  # [1, 8]

    def to_reference(output):  # of one image, as pytorch-grad-cam's tutorial on embeddings has it
        return torch.nn.CosineSimilarity(dim=0)(output, reference[0])

    want = peer_map(features, features[3], x, [to_reference])
    result = Explainer(features, target_layer='3')(x, lambda output: torch.cosine_similarity(output, reference))
    torch.testing.assert_close(result.maps, want, rtol=1e-3, atol=1e-5 * float(want.max()))
    assert want.max() > 0


def test_every_method_explains_a_function_or_needs_classes(net):
    x = torch.randn(2, 3, 16, 16)
    few = Options(smooth_grad_nr_iter=2, integrated_grad_nr_iter=2, rise_nr_masks=2, num_samples=2, noise_seeds=[1, 2])
    for name, row in MAPS.items():
        if row.readout or name == 'finer_cam':
            with pytest.raises(UserError, match='needs classes'):
                explain(name, net, x, lambda output: output[:, 3], options=few)
            continue
        maps = explain(name, net, x, lambda output: output[:, 3], options=few)
        torch.testing.assert_close(maps, explain(name, net, x, 3, options=few), msg=name)
    with pytest.raises(UserError, match='returns the difference'):
        explain('grad_cam', net, x, lambda output: output[:, 3], contrast=1)


# ---- names and options


@pytest.mark.parametrize(
    'typed, name',
    [
        ('GradCAM', 'grad_cam'),
        ('Grad-CAM', 'grad_cam'),
        ('GradCAM++', 'grad_cam_pp'),
        ('GradCAMPlusPlus', 'grad_cam_pp'),
        ('GradCAMpp', 'grad_cam_pp'),
        ('Smooth Grad-CAM++', 'smooth_grad_cam_pp'),
        ('IntegratedGradients', 'integrated_gradients'),
        ('CAM', 'vanilla'),
        ('calm', 'jointll'),
        ('HiResCAM', 'hires_cam'),
        ('score-cam', 'score_cam'),
        ('LayerGradCam', 'grad_cam'),
        ('RISE', 'rise'),
        ('VANILLA_superclass', 'vanilla-superclass'),
    ],
)
def test_names_as_people_type_them(typed, name):
    assert attribution.resolve(typed) == name


def test_no_two_maps_share_a_spelling_and_close_names_are_suggested(net):
    assert len({registry.plain(name) for name in MAPS}) == len(MAPS)
    assert not {registry.plain(name) for name in MAPS} & {*registry.OTHER_NAMES}
    with pytest.raises(UserError, match='unknown attribution map .GradCAMM.: did you mean grad_cam'):
        Explainer(net, 'GradCAMM')
    with pytest.raises(UserError, match='choose one of vanilla, '):
        explain('nothing like it', net, torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match='did you mean grad_cam'):
        attribution.lookup('GradCAM')  # of commands, whose results bear the name


def test_every_method_is_a_function_of_the_door(net):
    x = torch.randn(1, 3, 16, 16)
    assert set(attribution.__all__) <= set(dir(attribution))
    for name, row in MAPS.items():
        if row.readout and row.readout.sets or '-' in name:
            continue
        assert getattr(attribution, name) is row.function and row.function.__doc__
    torch.testing.assert_close(
        attribution.layer_cam(net, x, 2, target_layer='1'), explain('layer_cam', net, x, 2, target_layer='1')
    )
    torch.testing.assert_close(Explainer(net, attribution.layer_cam)(x, 2).maps, explain('layer_cam', net, x, 2))


def test_the_examples_of_the_documentation_run():
    """Of the door, and of each method on a network with layers conv1 and conv2, 8 x 8 locations for 16 pixels."""
    for module in (explaining, registry, attribution.pictures):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed, module
    torch.manual_seed(0)
    layers = {'conv1': nn.Conv2d(3, 6, 3, 2, 1), 'relu': nn.ReLU(), 'conv2': nn.Conv2d(6, 8, 3, padding=1)}
    head = {'pool': nn.AdaptiveAvgPool2d(1), 'flat': nn.Flatten(), 'linear': nn.Linear(8, 5)}
    given = {'model': nn.Sequential(OrderedDict(**layers, **head)), 'images': torch.randn(2, 3, 16, 16)}
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for name, row in MAPS.items():
        if row.readout:
            continue
        (example,) = finder.find(row.function, name, globs={'torch': torch, name: row.function, **given})
        assert runner.run(example) == (0, 1), name


def test_single_options_win_over_options_and_none_is_the_default(net):
    x = torch.randn(1, 3, 16, 16)
    few = Options(target_layer='1', batch_size=2)
    assert options.combined(few, {'batch_size': 4}) == Options(target_layer='1', batch_size=4)
    assert options.combined(few, {'target_layer': None, 'batch_size': None}) == Options()
    torch.testing.assert_close(
        explain('grad_cam', net, x, 1, options=few, target_layer=None), explain('grad_cam', net, x, 1)
    )
    first = Explainer(net, 'layer_cam', options=few)
    torch.testing.assert_close(first(x, 1).maps, explain('layer_cam', net, x, 1, target_layer='1'))
    torch.testing.assert_close(first(x, 1, target_layer='0').maps, explain('layer_cam', net, x, 1, target_layer='0'))
    torch.testing.assert_close(first(x, 1, target_layer=None).maps, explain('layer_cam', net, x, 1))
    with pytest.raises(UserError, match='unknown option layer: the options are target_layer'):
        Explainer(net, layer='1')


def test_numbers_of_images_as_people_have_them(net):
    x = torch.randn(2, 3, 16, 16)
    few = {'smooth_grad_nr_iter': 2, 'of_image': [0, 0]}
    want = explain('smooth_grad', net, x, 1, noise_seeds=[3, 4], **few)
    for make in (np.array, torch.tensor, tuple):
        few['of_image'] = make([0, 0])
        torch.testing.assert_close(explain('smooth_grad', net, x, 1, noise_seeds=make([3, 4]), **few), want)


def test_an_option_that_plays_no_part_is_a_warning(net):
    x = torch.randn(1, 3, 16, 16)
    with pytest.warns(UserWarning, match='grad_cam does not read rise_nr_masks: its options are'):
        explain('grad_cam', net, x, rise_nr_masks=5)
    with pytest.warns(UserWarning, match='input_grad does not read target_layer'):
        Explainer(net, 'input_grad', target_layer='1')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        explain('rise', net, x, rise_nr_masks=2, generator=torch.Generator(), batch_size=2)
        explain('grad_cam', net, x, options=Options(rise_nr_masks=5), at=None)


def test_the_registry_says_which_options_a_map_reads(monkeypatch):
    """Against what the code reads in fact, of options that note their readers."""
    import sys

    read = set()
    frame = {common.__file__: {'on_any_batch', 'baseline_of'}, contrast.__file__: {'explain_contrast'}}

    class Noting(Options):
        def __getattribute__(self, name):
            caller = sys._getframe(1)
            code = caller.f_code
            shared = code.co_filename in frame and code.co_name in frame[code.co_filename]
            shared = (
                shared or code.co_filename.endswith(('dataclasses.py', 'options.py')) or code.co_filename == '<string>'
            )
            if code.co_name == 'baseline_of' and caller.f_back.f_code.co_name != 'on_any_batch':
                shared = False
            if not shared and name in known:
                read.add(name)
            return super().__getattribute__(name)

    known = {field.name for field in fields(Options)}
    net = classifier()
    own = wsol.build_model('vgg_tiny', 'CALM-EM', 5).eval()
    x = torch.randn(1, 3, 32, 32)
    few = {'smooth_grad_nr_iter': 2, 'integrated_grad_nr_iter': 2, 'rise_nr_masks': 2, 'num_samples': 2}
    sets = {y: [y] for y in range(5)}
    for name, row in MAPS.items():
        read.clear()
        row.function(own if row.readout else net, x, 1, Noting(**few, superclass=sets))
        if row.readout and not row.readout.sets:
            read.discard('superclass')  # of which these make nothing
        shared = {'batch_size', 'progress', 'noise_seeds', 'of_image', 'generator'}
        assert read - shared == {*row.options} - shared, name
        assert row.noisy >= bool(read & {'noise_seeds', 'generator'}), name


# ---- overlays


def test_an_overlay_by_hand(cat):
    grey = np.full((4, 6, 3), 100, np.uint8)
    ones = np.ones((2, 3))
    picture = attribution.overlay(grey, ones, opacity=1)
    assert picture.size == (6, 4) and picture.mode == 'RGB'
    assert np.asarray(attribution.overlay(grey, ones, opacity=0)).tolist() == grey.tolist()
    import cv2

    top = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0, ::-1]
    half = np.asarray(attribution.overlay(grey, 7 * ones, 'viridis', 0.5))
    assert (half == np.round(0.5 * 100 + 0.5 * top)).all()
    assert np.asarray(attribution.overlay(grey, 0 * ones)).tolist() == grey.tolist()
    signed = np.asarray(attribution.overlay(grey, torch.tensor([[1.0, 0.0, -1.0]]), opacity=1)).astype(int)
    assert (signed[:, 0, 0] > signed[:, 0, 2]).all() and (signed[:, -1, 0] < signed[:, -1, 2]).all()
    assert attribution.overlay(CAT, torch.rand(7, 7)).size == cat.size
    assert attribution.overlay(torch.rand(3, 4, 6), torch.rand(7, 7)).size == (6, 4)


def test_what_no_overlay_can_be_made_of():
    grey = np.full((4, 6, 3), 100, np.uint8)
    for arguments, said in (
        ((grey, np.ones(3)), 'one map'),
        ((grey, np.full((2, 2), np.nan)), 'finite'),
        ((grey, np.ones((2, 2)), 'jetty'), 'did you mean jet'),
        ((grey, np.ones((2, 2)), 'jet', 2), 'opacity is 2'),
        ((grey / 2, np.ones((2, 2))), 'outside'),
        ((grey[..., :2], np.ones((2, 2))), 'h, w, 3'),
        ((3, np.ones((2, 2))), 'type int'),
    ):
        with pytest.raises(UserError, match=said):
            attribution.overlay(*arguments)


# ---- bad input


def test_each_mistake_is_one_clear_error_of_the_library(net, tmp_path):
    (tmp_path / 'notes.jpg').write_text('no image')
    Image.new('RGB', (1, 1)).save(tmp_path / 'dot.png')
    explainer = Explainer(net)
    x = torch.randn(2, 3, 16, 16)
    elsewhere = Explainer(classifier().to('meta'))
    for call, said in (
        (lambda: explainer(tmp_path / 'notes.jpg'), 'notes.jpg is unreadable'),
        (lambda: explainer('none.jpg'), 'none.jpg is missing'),
        (lambda: explainer(tmp_path / 'dot.png'), 'dot.png has 1 x 1 pixel'),
        (lambda: explainer(torch.rand(1, 3, 1, 1)), '1 x 1 pixels'),
        (lambda: explainer(x, target='lion'), "unknown class 'lion'"),
        (lambda: explainer(x, target=5), 'outside 0..4'),
        (lambda: explainer(x, target=['cat'] * 3), '3 classes for 2 images'),
        (lambda: explainer(x, target=1.5), 'whole class numbers'),
        (lambda: explainer(x, target=lambda output: output), r'returns \[2, 5\] of torch.float32 for 2 images'),
        (lambda: explainer(x, target=lambda output: output.sum()), r'returns \[\] of'),
        (lambda: explainer(x, target=lambda output: 3), 'returns int'),
        (lambda: explainer(x, target_layer='6'), 'outputs .* not '),
        (lambda: explainer(x, target_layer='4'), 'without locations'),
        (lambda: explainer(x, target_layer='9'), 'unknown target_layer'),
        (lambda: elsewhere(x), "on the device 'meta'"),
        (lambda: explainer([]), 'empty list'),
        (lambda: explainer(5), 'type int'),
        (lambda: explainer([x[0], x[0, :, :8]]), 'one shape'),
        (lambda: explain('grad_cam', net, CAT), 'an Explainer takes paths'),
        (lambda: explain('grad_cam', net, x, 'cat'), "is 'cat': give a whole number, .* an Explainer takes names"),
        (lambda: explain('grad_cam', net, x, [1, None]), r'is \[1, None\]: give a whole number, or one per image'),
        (lambda: explain('grad_cam', net, x, 1, contrast=['a', 'b']), 'target or contrast is'),
        (lambda: explain('rise', net, x, 1, noise_seeds=42), 'noise_seeds is 42: give a list of whole numbers'),
        (lambda: explain('rise', net, x, 1, noise_seeds=[0.5, 1.5]), 'noise_seeds is .*: give a list of whole numbers'),
        (lambda: explain('rise', net, x, 1, noise_seeds=[1]), '1 noise_seeds for 2 images'),
        (lambda: explain('rise', net, x, 1, generator=3), 'generator is 3: give a torch.Generator, or noise_seeds'),
        (lambda: explain('rise', net, x, 1, batch_size=8.0), 'batch_size is 8.0: give a whole number'),
    ):
        with pytest.raises(UserError, match=said) as error:
            call()
        assert '\n' not in str(error.value) and '--' not in str(error.value)
