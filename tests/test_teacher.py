"""EM and ML: the same gradient while p' comes from the current weights; teachers that lag; what a state keeps of
them."""

import copy
from types import SimpleNamespace

import pytest
import torch
from test_training import CPU, RECIPE, Batches, network, never, nobody_asks, two  # noqa: F401

import util
import wsol
from engine import processes, training
from engine.objective import Teacher
from engine.resume import resuming
from wsol import calm
from wsol.network import Forward

LAGGING = [('epoch', 0.9), ('ema', 0.6)]  # a teacher of the last epoch has no use for the decay


def trainer(folder='nowhere', net=None, **changes):
    run = resuming.Run(str(folder), {'architecture': 'vgg_tiny', 'seed': 3}, resume=False, override=False)
    return training.Trainer(run, RECIPE._replace(**changes), net or network('CALM-EM'), CPU)


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def scores():
    """f, a and y in float64; h = relu(a) is 0 in places, no image is dead."""
    f = 2 * torch.randn(4, 5, 3, 2, dtype=torch.float64)
    a = torch.randn(4, 1, 3, 2, dtype=torch.float64)
    a[:, 0, 0, 0] = 0.3
    return f.requires_grad_(), a.requires_grad_(), torch.tensor([1, 3, 0, 4])


def gradients(loss, f, a, y):
    """In f and in a, the attention before its ReLU, as a network has them."""
    return torch.autograd.grad(loss(f, a.relu(), y).sum(), (f, a))


def test_em_and_ml_have_the_same_gradient_without_the_epsilons(monkeypatch):
    """Fisher's identity: the EM bound touches the likelihood where p' is of the current weights."""
    monkeypatch.setattr(calm, 'EPS_Y', 0.0)
    monkeypatch.setattr(calm, 'EPS_LOG_Z', 1e-300)  # p(z|x) = 0 needs some
    f, a, y = scores()
    for em, ml in zip(gradients(calm.em_loss, f, a, y), gradients(calm.ml_loss, f, a, y)):
        assert ml.abs().max() > 0.1
        torch.testing.assert_close(em, ml, rtol=1e-12, atol=1e-14)


def test_the_epsilons_part_the_gradients_of_em_and_ml_by_known_factors():
    """EM's is p(y|x) / (p(y|x) + 1e-10) of ML's; in h also p(z|x) / (p(z|x) + 1e-8) of it where p(z|x) < 1e-8."""
    f, a, y = scores()
    with torch.no_grad():
        a[:, 0, 1, 1] = 3e-9
        f[0] -= 18 * torch.nn.functional.one_hot(y[:1], 5)[0][:, None, None]  # a class that is as good as excluded
    (em_f, em_a), (ml_f, ml_a) = (gradients(loss, f, a, y) for loss in (calm.em_loss, calm.ml_loss))
    h = a.detach().relu()
    p_y = calm.p_y_given_x(f, h).gather(1, y[:, None])[:, :, None, None]
    factor = p_y / (p_y + 1e-10)
    p_z = calm.p_z_given_x(h)
    log_factor = torch.where(p_z < 1e-8, p_z / (p_z + 1e-8), 1)
    assert factor.min() < 1 - 1e-3 and 0 < log_factor[h > 0].min() < 0.5
    torch.testing.assert_close(em_f, ml_f * factor, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(em_a, ml_a * factor * log_factor, rtol=1e-11, atol=1e-14)


def test_the_loss_of_a_given_posterior_written_out():
    f, a, y = scores()
    h = a.relu().detach()
    posterior = torch.rand(4, 3, 2, dtype=f.dtype)
    joint = f.softmax(dim=1)[range(4), y] * (h / h.sum(dim=(2, 3), keepdim=True).detach())[:, 0]
    by_hand = [
        -sum(posterior[b, i, j] * (joint[b, i, j] + (joint[b, i, j] == 0) * 1e-8 * f.softmax(1)[b, y[b], i, j]).log()
             for i in range(3) for j in range(2))
        for b in range(4)
    ]  # fmt: skip
    found = calm.em_loss(f, h, y, posterior)
    torch.testing.assert_close(found, torch.stack(by_hand))
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), f)[0], torch.autograd.grad(sum(by_hand), f)[0], rtol=1e-9, atol=1e-12
    )
    own = calm.e_step(f, h, y)
    torch.testing.assert_close(own, calm.p_z_given_xy(f, h)[range(4), y])
    assert not own.requires_grad and torch.equal(calm.em_loss(f, h, y, own), calm.em_loss(f, h, y))


def distances(dtype, scale, steps=20):
    """|w_EM - w_ML| / |w_ML - w_start| after each step, of vgg_tiny trained by both losses on the same images.

    scale: of the starting weights of conv_last. 1 is He's initialisation, whose class scores lie far apart here: many
    labels begin with p(y|x) under 1e-10; .01 makes all classes about equally probable.
    """
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(24, 3, 24, 24, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.arange(24) % 6
    nets = []
    for method in ('CALM-EM', 'CALM-ML'):
        torch.manual_seed(0)
        nets.append(wsol.build_model('vgg_tiny', method, 6).to(dtype).train())
        nets[-1].conv_last.weight.data *= scale
    recipe = RECIPE._replace(lr=0.01, lr_classifier_ratio=1, weight_decay=1e-4)
    optimizers = [training.make_optimizer(recipe, net, CPU) for net in nets]

    def flat(net):
        return torch.cat([p.detach().double().flatten() for p in net.parameters()])

    start = flat(nets[0])
    assert torch.equal(start, flat(nets[1]))
    found = []
    for step in range(steps):
        rows = slice(step % 3 * 8, step % 3 * 8 + 8)
        for net, optimizer in zip(nets, optimizers):
            optimizer.zero_grad()
            net(images[rows]).loss(labels[rows]).mean().backward()
            optimizer.step()
        em, ml = map(flat, nets)
        found.append(float((em - ml).norm() / (ml - start).norm()))
    return found


@pytest.mark.parametrize('scale, least, most, most_float32', [(0.01, 0, 1e-5, 1e-2), (1.0, 0.01, 1, 1)])
@pytest.mark.slow
def test_one_seed_trained_with_both_losses(monkeypatch, scale, least, most, most_float32):
    """Without the epsilon of p(y|x) the distance is rounding; with it, it is as many labels are as good as excluded.

    `pytest -s` prints the distances by step.
    """
    table = {name: distances(getattr(torch, name), scale) for name in ('float32', 'float64')}
    monkeypatch.setattr(calm, 'EPS_Y', 0.0)
    table['float64 without 1e-10'] = distances(torch.float64, scale)
    for step in (1, 2, 5, 10, 20):
        row = ', '.join(f'{name} {found[step - 1]:.1e}' for name, found in table.items())
        print(f'conv_last x {scale}, step {step:2d}: {row}')
    assert max(table['float64 without 1e-10']) < 1e-9
    assert least < max(table['float64']) < most
    assert least < max(table['float32']) < most_float32


@pytest.mark.parametrize('changes', [{}, {'freeze_bn': True}, {'amp': 'bf16'}])
def test_a_teacher_without_a_lag_is_the_network_itself(changes):
    """A running average of decay 0 holds the current weights: bit for bit the training without a teacher."""
    nets = [network('CALM-EM'), network('CALM-EM')]
    if changes.get('amp'):
        nets = [net.float() for net in nets]
    kinds = ({}, {'em_teacher': 'ema', 'em_decay': 0.0})
    for net, kind in zip(nets, kinds):
        one = trainer(net=net, **changes, **kind)
        batches = Batches()
        batches.images = batches.images.to(next(net.parameters()).dtype)
        for _ in range(2):
            one.train_epoch(batches, 'epoch', never)
            one.next_epoch()
    assert equal(nets[0].state_dict(), nets[1].state_dict())


@pytest.mark.parametrize('kind, decay', LAGGING)
def test_a_lagging_teacher_holds_the_weights_by_hand(kind, decay):
    one = trainer(em_teacher=kind, em_decay=decay)
    expected = parameters(one.model)
    start = parameters(one.model)
    for _ in range(2):
        for images, labels, _ in Batches():
            held = parameters(one.teacher.average.module)
            for name, value in held.items():
                torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-15)
            one.train_step(images, labels, len(labels))
            now = parameters(one.model)
            if kind == 'ema':
                expected = {name: 0.6 * value + 0.4 * now[name] for name, value in expected.items()}
        one.next_epoch()
        expected = now if kind == 'epoch' else expected
        assert not equal(start, expected) and equal(now, expected) == (kind == 'epoch')
    assert not any(p.requires_grad for p in one.teacher.average.parameters())


@pytest.mark.parametrize('frozen', [False, True])
def test_a_step_takes_the_teachers_posterior_in_the_mode_of_the_network(frozen):
    """The gradient of a step by hand: p' of a second network in the same mode, the loss from the current weights."""
    one = trainer(em_teacher='epoch', freeze_bn=frozen, momentum=0, weight_decay=0)
    other = network('CALM-EM', seed=4)  # the teacher, for once other weights
    wsol.load_weights(one.teacher.average.module, other.state_dict())
    plain = copy.deepcopy(one.model)
    for net in (plain, other):
        net.train()
        net.features.bn.training = not frozen
    images, labels = next(iter(Batches()))[:2]
    teachers, own = (net(images).float() for net in (other, plain))
    posterior = calm.p_z_given_xy(teachers.f, teachers.h)[range(4), labels].detach()
    calm.em_loss(own.f, own.h, labels, posterior).mean().backward()
    one._train_mode()
    one.train_step(images, labels, 4)
    for (name, p), before in zip(one.model.named_parameters(), plain.parameters()):
        rate = 0.01 if name.startswith('features') else 0.05
        torch.testing.assert_close(p.detach(), before.detach() - rate * before.grad, msg=name)
    for name, buffer in one.model.named_buffers():  # the teacher's pass leaves no trace
        assert torch.equal(buffer, dict(plain.named_buffers())[name]), name


@pytest.mark.parametrize('kind, decay', LAGGING)
@pytest.mark.parametrize('steps', [1, 3])
def test_a_state_holds_the_teacher(tmp_path, kind, decay, steps):
    """Saved within an epoch and after its last step: what follows is bit for bit what would have followed."""
    how = {'em_teacher': kind, 'em_decay': decay}
    one = trainer(tmp_path, **how)
    one.train_epoch(Batches(), 'epoch', never)
    one.next_epoch()
    for images, labels, _ in list(Batches())[:steps]:
        one.train_step(images, labels, len(labels))
        one.step += 1
    one.save(SimpleNamespace(size=lambda: 0))
    record = util.read_checkpoint(tmp_path / training.STATE, 'vgg_tiny', 'CALM-EM', False)
    other = trainer(tmp_path, network('CALM-EM', seed=9), **how)
    other.load(record)
    assert equal(one.teacher.state(), other.teacher.state()) and len(one.teacher.state()) > 5
    for trained in (one, other):
        for _ in range(2):
            trained.train_epoch(Batches(), 'epoch', never)
            trained.next_epoch()
    assert equal(one.model.state_dict(), other.model.state_dict())
    assert equal(one.teacher.state(), other.teacher.state())
    lost = {**record, 'progress': {key: value for key, value in record['progress'].items() if key != 'teacher'}}
    with pytest.raises(ValueError, match=f'no teacher: continue without --em_teacher={kind}'):
        other.load(lost)


def test_checkpoints_and_the_state_of_the_current_teacher_know_no_teacher(tmp_path):
    one = trainer(tmp_path, em_teacher='ema')
    util.save_checkpoint(tmp_path / 'last.pth.tar', one.model, one.optimizer, 1, one.run.arguments)
    record = torch.load(tmp_path / 'last.pth.tar', weights_only=True)
    assert sorted(record) == ['architecture', 'args', 'epoch', 'optimizer', 'state_dict']
    assert list(record['state_dict']) == list(network('CALM-EM').state_dict())
    plain = trainer(tmp_path)
    plain.save(SimpleNamespace(size=lambda: 0))
    progress = util.read_checkpoint(tmp_path / training.STATE, 'vgg_tiny', 'CALM-EM', False)['progress']
    assert plain.teacher is None and 'teacher' not in progress


def test_mixed_precision_is_of_the_teachers_network_too():
    seen = []
    one = trainer(net=network('CALM-EM').float(), amp='bf16', em_teacher='ema')
    one.teacher.average.module.conv_last.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    batch = Batches(4)
    found = one.teacher.posterior(batch.images.float(), batch.labels)
    assert seen == [torch.bfloat16] and found.dtype == torch.float32 and found.shape == (4, 8, 8)


def test_a_compiled_network_has_a_teacher_of_its_own(monkeypatch):
    """What torch.compile made runs the weights of whichever network it is given."""
    calls = []

    def compiled(function):
        return lambda net, x: calls.append(net) or function(net, x)

    monkeypatch.setattr(torch, 'compile', compiled)
    net = network('CALM-EM')
    net.run = Forward(torch.compile(net.run.function))
    teacher = Teacher(net, 'ema', 0.5)
    batch = Batches(4)
    before = teacher.posterior(batch.images, batch.labels)
    with torch.no_grad():
        net.features.conv.weight.mul_(-1)
    assert torch.equal(teacher.posterior(batch.images, batch.labels), before)
    teacher.after('ema')
    assert not torch.equal(teacher.posterior(batch.images, batch.labels), before)
    assert calls and all(one is teacher.average.module for one in calls)


@pytest.mark.parametrize('kind, decay', LAGGING)
def test_a_process_without_images_moves_its_teacher_alike(two, kind, decay):  # noqa: F811
    one = trainer(em_teacher=kind, em_decay=decay, weight_decay=0)
    one.train_step(torch.zeros(0, 3, 8, 8).double(), torch.zeros(0, dtype=torch.long), 1)
    assert equal(parameters(one.model), parameters(one.teacher.average.module)) and one.total == 0
    assert processes.world() == 2 and len(two.wrapped) == 1


@pytest.mark.parametrize('method', ['CAM', 'CALM-ML', 'LFI-CAM'])
def test_only_calm_em_has_a_teacher(method):
    with pytest.raises(ValueError, match=f'{method} does not use: leave it out, or give --attribution_method='):
        trainer(net=network(method), em_teacher='ema')
    assert trainer(net=network(method)).teacher is None


def test_the_gradient_loss_and_a_teacher_are_refused_together():
    with pytest.raises(ValueError, match='leave it out, or --em_teacher'):
        trainer(em_teacher='epoch', gradient_reg=1.0)
