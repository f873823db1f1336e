"""The interpretable-gradient loss: by hand, by finite differences, on networks without ReLUs, and in training."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional

import config
import wsol
from wsol.attribution import gradient
from wsol.network import Network
from wsol.regularization import ERRORS, cosine, gradient_regularization, l1, l2

Y = torch.tensor([0, 3, 1, 2])


def network(method, seed=0):
    """Batch norm, ReLUs in place and not, pooling; float64, in training mode; its attention is alive."""
    torch.manual_seed(seed)
    parts = OrderedDict(
        conv1=nn.Conv2d(3, 5, 3, padding=1),
        bn1=nn.BatchNorm2d(5),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(2),
        conv2=nn.Conv2d(5, 6, 3),
        last=nn.ReLU(inplace=True),
    )
    net = Network(nn.Sequential(parts), 6, 4, method).double()
    nn.init.constant_(net.attention[0].bias, 0.3)
    net.conv_last.weight.data *= 3
    return net.train()


def photos(n=4, size=10):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(7)).double()


def plain_gradients(net, x, loss):
    """d loss / dx [B, n] in plain PyTorch, none of it ours but the network."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(net(x)).sum(), x)[0].flatten(1)


def test_names_are_those_of_the_command_line():
    assert [config.get_configs('', [f'--gradient_reg_error={name}']).gradient_reg_error for name in ERRORS] == [*ERRORS]
    with pytest.raises(ValueError, match='cosine, l1, l2'):
        gradient_regularization(network('CAM'), photos(), Y, 'l3')


def test_errors_by_hand():
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [2.0, 2.0]])
    b = torch.tensor([[4.0, 3.0], [-2.0, 0.0], [1.0, 2.0], [1.0, 1.0]])
    torch.testing.assert_close(cosine(a, b), torch.tensor([1 - 24 / 25, 2, 1, 0]))
    torch.testing.assert_close(l1(a, b), torch.tensor([1, 1.5, 1.5, 1]))
    torch.testing.assert_close(l2(a, b), torch.tensor([1, 4.5, 2.5, 1]))
    tiny = (a * 1e-30).requires_grad_()  # its squares are 0 in float32
    torch.testing.assert_close(cosine(tiny, b), cosine(a, b))
    assert torch.isfinite(torch.autograd.grad(cosine(tiny, b).sum(), tiny)[0]).all()


@pytest.mark.parametrize('error', ERRORS)
def test_two_layers_written_out(error):
    """CAM on relu(conv(x)): both gradients by the chain rule, L_R's gradient in the weights with the guided one as a
    constant."""
    torch.manual_seed(0)
    net = Network(nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 6, 3), relu=nn.ReLU(inplace=True))), 6, 4, 'CAM').double()
    x = photos(size=5)
    losses, errors, probs = gradient_regularization(net, x, Y, error)
    W = net.conv.weight
    bias = net.conv.bias
    V = net.conv_last.weight[:, :, 0, 0]
    a = functional.conv2d(x, W, bias)  # [B, 6, 3, 3]
    p = torch.einsum('blhw,cl->bc', a.clamp(min=0), V) / 9 + net.conv_last.bias
    p = p.exp() / p.exp().sum(dim=1, keepdim=True)
    at_features = torch.einsum('bc,cl->bl', p - functional.one_hot(Y, 4), V)[:, :, None, None] / 9 * (a > 0)
    plain = functional.conv_transpose2d(at_features, W).flatten(1)
    guided = functional.conv_transpose2d(at_features.clamp(min=0), W).flatten(1).detach()
    torch.testing.assert_close(losses, -p[range(4), Y].log())
    torch.testing.assert_close(probs, p)
    torch.testing.assert_close(errors, ERRORS[error](plain, guided))
    assert errors.min() > 1e-9
    got = torch.autograd.grad(errors.sum(), [W, net.conv_last.weight])
    by_hand = torch.autograd.grad(ERRORS[error](plain, guided).sum(), [W, net.conv_last.weight])
    for one, other in zip(got, by_hand):
        torch.testing.assert_close(one, other)


def frozen_loss(method, net, x):
    """The class loss as a function of the output, with the constants it has by definition taken from the weights of
    now."""
    if method in ('CAM', 'LFI-CAM'):
        return lambda output: functional.cross_entropy(output.f.mean(dim=(2, 3)), Y, reduction='none')
    rows = torch.arange(len(Y))
    with torch.no_grad():
        output = net(x)
        total = output.h.sum(dim=(1, 2, 3))[:, None, None]
        joint = output.f.softmax(dim=1)[rows, Y] * output.h[:, 0] / total
        posterior = joint / (joint.sum(dim=(1, 2), keepdim=True) + 1e-10)

    def loss(output):
        p_y = output.f.softmax(dim=1)[rows, Y]
        p_z = output.h[:, 0] / total
        if method == 'CALM-ML':
            return -(p_y * p_z).sum(dim=(1, 2)).log()
        return -(posterior * (p_y.log() + torch.where(p_z < 1e-8, p_z + 1e-8, p_z).log())).sum(dim=(1, 2))

    return loss


@pytest.mark.parametrize('method', wsol.ATTRIBUTION_METHODS)
@pytest.mark.parametrize('error', ERRORS)
def test_gradient_in_the_weights_by_finite_differences(method, error):
    """Along random directions: L_R of the plain input gradients, the guided ones and the losses' own constants held."""
    net = network(method)
    x = photos()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    loss = frozen_loss(method, net, x)
    net.load_state_dict(state)
    losses, errors, _ = gradient_regularization(net, x, Y, error)
    images = x.clone().requires_grad_()
    with gradient.GuidedReLUs():
        guided = torch.autograd.grad(loss(net(images)).sum(), images)[0].flatten(1)
    plain = plain_gradients(net, x, loss)
    torch.testing.assert_close(losses, loss(net(x)))
    torch.testing.assert_close(errors, ERRORS[error](plain, guided))
    assert (plain - guided).abs().max() > 0.05 * plain.abs().max()
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(errors.mean(), parameters, allow_unused=True, materialize_grads=True)
    torch.manual_seed(1)
    for _ in range(3):
        direction = [torch.randn_like(p) for p in parameters]
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                for p, d in zip(parameters, direction):
                    p += step * d
            values.append(ERRORS[error](plain_gradients(net, x, loss), guided).mean())
            with torch.no_grad():
                for p, d in zip(parameters, direction):
                    p -= step * d
        along = sum((g * d).sum() for g, d in zip(gradients, direction))
        assert (values[0] - values[1]).item() / 2e-6 == pytest.approx(
            along.item(), rel=1e-4, abs=1e-7 * errors.mean().item()
        )


@pytest.mark.parametrize('error, power', [('cosine', 0), ('l1', 1), ('l2', 2)])
def test_the_mean_loss_of_the_paper_and_the_sum_here(error, power):
    """The paper differentiates the mean loss of a batch of n: its errors are ours over n^power, ours are the same in
    every batch."""
    net = network('CALM-ML').eval()  # batch norm would mix the images
    x = photos()
    errors = gradient_regularization(net, x, Y, error)[1].detach()
    for mode in (plain := [], guided := []):
        images = x.clone().requires_grad_()
        with gradient.GuidedReLUs(guided=mode is guided):
            mode.append(torch.autograd.grad(net(images).loss(Y).mean(), images)[0].flatten(1))
    torch.testing.assert_close(ERRORS[error](plain[0], guided[0]) * 4**power, errors)
    alone = [gradient_regularization(net, x[i : i + 1], Y[i : i + 1], error)[1].detach() for i in range(4)]
    torch.testing.assert_close(torch.cat(alone), errors)
    assert errors.min() > 0


@pytest.mark.parametrize('error, tolerance', [('l1', 0), ('l2', 0), ('cosine', 1e-12)])
def test_without_relus_there_is_nothing_to_guide(error, tolerance):
    net = Network(nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 6, 3))), 6, 4, 'CAM').double()
    assert gradient_regularization(net, photos(), Y, error)[1].abs().max() <= tolerance


@pytest.mark.parametrize(
    'architecture', [*(pytest.param(name, marks=pytest.mark.slow) for name in ('resnet18', 'inception_v3')), 'vgg_tiny']
)
def test_one_plain_pass_of_the_whole_network(architecture):
    """Loss, probabilities, batch-norm statistics and weight gradients equal those of plain PyTorch; nothing is left
    behind."""
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(wsol.build_model(architecture, 'CALM-EM', 4, use_bn=True).train())
        next(m for m in nets[-1].modules() if isinstance(m, nn.BatchNorm2d)).eval()
    net, plain = nets
    modes = [m.training for m in net.modules()]
    x = torch.randn(4, 3, 64, 64)
    before = x.clone()
    losses, errors, probs = gradient_regularization(net, x, Y)
    assert [m.training for m in net.modules()] == modes and all(p.grad is None for p in net.parameters())
    assert torch.equal(x, before) and not x.requires_grad and errors.shape == (4,)
    output = plain(x)
    torch.testing.assert_close(losses, output.loss(Y))
    torch.testing.assert_close(probs, output.probs)
    for (name, one), other in zip(net.named_buffers(), plain.buffers()):
        assert torch.equal(one, other), name
    output.loss(Y).mean().backward()
    class_gradients = torch.autograd.grad(losses.mean(), list(net.parameters()), retain_graph=True)
    for one, other in zip(class_gradients, plain.parameters()):
        torch.testing.assert_close(one, other.grad, rtol=1e-3, atol=1e-5 + 1e-3 * float(other.grad.abs().max()))
    (losses + errors).mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert any((p.grad - one).abs().max() > 0.01 * one.abs().max() for p, one in zip(net.parameters(), class_gradients))


def test_lambda_trains_the_gradient():
    """Thirty steps on one batch: the class loss falls either way, the error only with lambda."""
    last = {}
    for weight in (0, 10):
        net = network('CAM')
        x = photos()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        history = []
        for _ in range(30):
            losses, errors, _ = gradient_regularization(net, x, Y)
            optimizer.zero_grad()
            (losses.mean() + weight * errors.mean()).backward()
            optimizer.step()
            history.append((losses.mean().item(), errors.mean().item()))
        assert history[-1][0] < history[0][0]
        last[weight] = history[-1][1] / history[0][1]
    assert last[10] < 0.5 and last[0] > 1, last


def test_mixed_precision_and_the_empty_share_of_a_batch():
    """Autocast around the network, its output in float32, as training does; a process may be left without images."""
    net = network('CALM-ML').float()
    x = photos().float()

    def low(images):
        with torch.autocast('cpu', torch.bfloat16):
            output = net(images)
        return output.float()

    losses, errors, _ = gradient_regularization(low, x, Y)
    exact = gradient_regularization(net, x, Y)[1]
    torch.testing.assert_close(errors, exact, rtol=0.1, atol=0.05)
    errors.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    losses, errors, probs = gradient_regularization(net.eval(), x[:0], Y[:0], 'l2')
    assert losses.shape == errors.shape == (0,) and probs.shape == (0, 4)
    (losses + errors).sum().backward()
