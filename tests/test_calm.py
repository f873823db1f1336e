"""The equations against a slow version in plain Python loops, their limit cases, and what autograd keeps."""

import math

import pytest
import torch

from wsol import calm, cam


def scores(B=2, C=4, H=3, W=2, dtype=torch.float64):
    f = 2 * torch.randn(B, C, H, W, dtype=dtype)
    h = torch.relu(torch.randn(B, 1, H, W, dtype=dtype))
    h[:, 0, 0, 0] = 0.3  # never dead
    return f, h, torch.tensor([1, 3])[:B]


def slow(f, h):
    """p(y,z|x) as nested lists [B][C][z], from the definitions."""
    table = []
    for b in range(f.shape[0]):
        locations = [(i, j) for i in range(f.shape[2]) for j in range(f.shape[3])]
        total = sum(float(h[b, 0, i, j]) for i, j in locations)
        image = [[] for _ in range(f.shape[1])]
        for i, j in locations:
            norm = sum(math.exp(float(f[b, c, i, j])) for c in range(f.shape[1]))
            for c in range(f.shape[1]):
                image[c].append(math.exp(float(f[b, c, i, j])) / norm * float(h[b, 0, i, j]) / total)
        table.append(image)
    return table


def slow_loss(f, h, y, kind):
    table = slow(f, h)
    losses = []
    for b, label in enumerate(y.tolist()):
        joint = table[b][label]
        whole = sum(table[b][label])
        if kind == 'ML':
            losses.append(-math.log(whole))
            continue
        loss = 0
        total = float(h[b].sum())
        for z, value in enumerate(joint):
            i, j = divmod(z, f.shape[3])
            p_z = float(h[b, 0, i, j]) / total
            norm = sum(math.exp(float(f[b, c, i, j])) for c in range(f.shape[1]))
            log_joint = float(f[b, label, i, j]) - math.log(norm) + math.log(p_z + (1e-8 if p_z < 1e-8 else 0))
            loss -= value / (whole + 1e-10) * log_joint
        losses.append(loss)
    return torch.tensor(losses, dtype=f.dtype)


def direct_loss(f, h, y, kind):
    """The losses written out over all classes, as the paper states them, for autograd to differentiate."""
    p_z = h / h.sum(dim=(2, 3), keepdim=True).detach()
    joint = f.softmax(1) * p_z
    rows = torch.arange(len(y))
    if kind == 'ML':
        return -joint.sum(dim=(2, 3)).log()[rows, y]
    posterior = (joint / (joint.sum(dim=(2, 3), keepdim=True) + 1e-10)).detach()
    log_joint = f.log_softmax(1) + torch.where(p_z < 1e-8, p_z + 1e-8, p_z).log()
    return -(posterior * log_joint).sum(dim=(2, 3))[rows, y]


def test_probabilities_equal_the_slow_version():
    f, h, _ = scores()
    table = torch.tensor(slow(f, h), dtype=f.dtype).view_as(f)
    torch.testing.assert_close(calm.p_yz_given_x(f, h), table)
    torch.testing.assert_close(calm.p_y_given_x(f, h), table.sum(dim=(2, 3)))
    torch.testing.assert_close(calm.p_z_given_xy(f, h), table / (table.sum(dim=(2, 3), keepdim=True) + 1e-10))
    torch.testing.assert_close(calm.p_z_given_x(h), table.sum(dim=1, keepdim=True))


@pytest.mark.parametrize('kind, loss', [('ML', calm.ml_loss), ('EM', calm.em_loss)])
def test_losses_equal_the_slow_version_and_the_direct_gradient(kind, loss):
    f, h, y = scores()
    torch.testing.assert_close(loss(f, h, y), slow_loss(f, h, y, kind))
    f.requires_grad_(), h.requires_grad_()
    got = torch.autograd.grad(loss(f, h, y).mean(), (f, h))
    want = torch.autograd.grad(direct_loss(f, h, y, kind).mean(), (f, h))
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)
        assert b.abs().max() > 0


def test_em_gradient_step_equals_ml_gradient_where_theory_says_so():
    """With the exact posterior the EM bound touches the likelihood, so both losses have one gradient in f (Jensen)."""
    f, h, y = scores()
    h = h + 0.1
    f.requires_grad_()
    (em,) = torch.autograd.grad(calm.em_loss(f, h, y).sum(), f)
    (ml,) = torch.autograd.grad(calm.ml_loss(f, h, y).sum(), f)
    torch.testing.assert_close(em, ml, rtol=1e-6, atol=1e-8)


def test_no_gradient_flows_through_the_normaliser():
    h = torch.tensor([[[[1.0, 3.0]]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(calm.p_z_given_x(h)[0, 0, 0, 0], h)
    assert gradient.tolist() == [[[[0.25, 0.0]]]]  # d(h0 / 4)/dh, the 4 a constant


def test_dead_attention_is_uniform_with_finite_losses_and_gradients():
    f, h, y = scores(dtype=torch.float32)
    h = torch.zeros_like(h, requires_grad=True)
    f.requires_grad_()
    assert torch.equal(calm.p_z_given_x(h), torch.full_like(h, 1 / 6))
    for loss in (calm.ml_loss, calm.em_loss):
        value = loss(f, h, y).sum()
        assert torch.isfinite(value)
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value, (f, h)))


def test_the_explained_log_is_that_of_the_prediction_where_rows_of_the_attention_are_dead():
    """Some rows, all but one place, and whole images."""
    f, h, _ = scores(B=4)
    h[0, :, 0], h[1] = 0, 0
    h[2].flatten()[1:] = 0
    torch.testing.assert_close(calm.log_p_y_given_x(f, h).exp(), calm.p_y_given_x(f, h))
    torch.testing.assert_close(calm.log_p_y_given_x(f, h)[2], f[2].log_softmax(dim=0)[:, 0, 0])


def test_the_released_epsilons_by_hand():
    """Under 1e-8 a p(z|x) is raised by 1e-8 before the log; p(y|x) is raised by 1e-10 before it divides."""
    h = torch.tensor([1.0, 2e-8, 9e-9, 0.0], dtype=torch.float64).view(1, 1, 2, 2)
    total = 1 + 2e-8 + 9e-9
    want = [math.log(1 / total), math.log(2e-8 / total), math.log(9e-9 / total + 1e-8), math.log(1e-8)]
    torch.testing.assert_close(calm.log_p_z_given_x(h).flatten(), torch.tensor(want, dtype=h.dtype), rtol=1e-9, atol=0)
    f = torch.tensor([0.0, -23.0], dtype=torch.float64).view(1, 2, 1, 1)
    p = math.exp(-23) / (1 + math.exp(-23))  # about 1e-10
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    assert calm.p_z_given_xy(f, one)[0, 1].item() == pytest.approx(p / (p + 1e-10), rel=1e-6)
    given = calm.p_z_given_xy(f, one, torch.tensor([[1, 3e-10]], dtype=torch.float64))
    assert given[0, 1].item() == pytest.approx(p / 4e-10, rel=1e-6)
    assert calm.em_loss(f, one, torch.tensor([1])).item() == pytest.approx(-p / (p + 1e-10) * math.log(p), rel=1e-6)


def test_one_location_and_one_class_by_hand():
    f = torch.tensor([[[[0.0]], [[math.log(3)]]]])
    h = torch.tensor([[[[7.0]]]])
    y = torch.tensor([1])
    torch.testing.assert_close(calm.p_y_given_x(f, h), torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(calm.ml_loss(f, h, y), torch.tensor([-math.log(0.75)]))
    one = torch.randn(1, 1, 2, 2)
    torch.testing.assert_close(
        calm.ml_loss(one, torch.ones(1, 1, 2, 2), torch.tensor([0])), torch.zeros(1), atol=1e-6, rtol=0
    )


def test_cam_by_hand():
    f = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]]])  # both classes have the mean 1
    torch.testing.assert_close(cam.p_y_given_x(f), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(cam.loss(f, None, torch.tensor([0])), torch.tensor([math.log(2)]))


def test_nothing_depends_on_how_many_images_are_taken_at_once(monkeypatch):
    f, h, _ = scores(B=5)
    y = torch.tensor([3, 0, 1, 2, 3])
    f.requires_grad_()
    whole = f.log_softmax(dim=1)[torch.arange(5), y]
    for at_once in (1, 2, 5):
        monkeypatch.setattr(calm, 'CHUNK', at_once * f[0].numel())
        p_y = calm.p_y_given_x(f, h)
        assert torch.equal(p_y, calm.p_yz_given_x(f, h).sum(dim=(2, 3)))
        torch.testing.assert_close(calm.log_p_label_given_xz(f, y), whole)
        (found,) = torch.autograd.grad(p_y[:, 1].sum(), f)
        (expected,) = torch.autograd.grad(calm.p_yz_given_x(f, h).sum(dim=(2, 3))[:, 1].sum(), f)
        assert torch.equal(found, expected)
    assert calm.p_y_given_x(f[:0], h[:0]).shape == (0, 4)


def kept_bytes(loss, f, h, y, of_scores_size_only=False):
    """Bytes that autograd keeps for the backward pass beside the scores f themselves, each storage once."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() != f.untyped_storage().data_ptr():
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(f, h, y)
    sizes = [size for size in kept.values() if not of_scores_size_only or size >= f.untyped_storage().nbytes()]
    del value
    return sum(sizes)


@pytest.mark.parametrize('kind, loss', [('ML', calm.ml_loss), ('EM', calm.em_loss), ('CAM', cam.loss)])
def test_losses_keep_no_second_tensor_of_the_size_of_the_scores(kind, loss):
    f = torch.randn(2, 100, 14, 14, requires_grad=True)
    h = torch.rand(2, 1, 14, 14, requires_grad=True)
    y = torch.tensor([3, 9])
    assert kept_bytes(loss, f, h, y, of_scores_size_only=True) == 0
    if kind != 'CAM':
        direct = kept_bytes(lambda *a: direct_loss(*a, kind), f, h, y)
        assert direct > 10 * kept_bytes(loss, f, h, y)


def test_bf16_and_float64_stay_in_their_type():
    for dtype in (torch.bfloat16, torch.float64):
        f, h, y = scores(dtype=dtype)
        assert calm.em_loss(f, h, y).dtype == calm.p_y_given_x(f, h).dtype == dtype
