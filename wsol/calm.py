"""CALM: class activation latent mapping (Kim et al., ICCV 2021, section 3), as pure functions.

    f            conv_last(F)           [B, C, H, W]  class score at each location
    h            relu(attention(F))     [B, 1, H, W]  unnormalised cue location
    p(y|x,z)     softmax over C of f    [B, C, H, W]  class given that the cue is at z
    p(z|x)       h / sum_z h            [B, 1, H, W]  where the cue is
    p(y,z|x)     p(y|x,z) p(z|x)        [B, C, H, W]  the CALM attribution map s(y), a probability
    p(y|x)       sum_z p(y,z|x)         [B, C]        the prediction
    p(z|x,y)     p(y,z|x) / p(y|x)      [B, C, H, W]  where the cue is, given the class
    CALM-ML      -log p(y|x)
    CALM-EM      -sum_z p'(z|x,y) log p(y,z|x), p' from the current weights or a teacher's, without a gradient

B images, C classes, H x W locations z; y in the losses is the label, a LongTensor [B].
"""

import torch

EPS_LOG_Z = 1e-8  # as released: added before the log where p(z|x) is smaller, avoids log 0
EPS_Y = 1e-10  # as released: added to p(y|x) before dividing by it
CHUNK = 2**20  # scores per chunk on a CPU: temporaries fit in its cache
LARGE_CHUNK = 2**26  # scores per chunk on an accelerator: enough to fill it; temporaries of 256 MiB


def _per_chunk(f):
    """Images per chunk, for scores f [B, C, H, W]."""
    chunk = CHUNK if f.device.type == 'cpu' else LARGE_CHUNK
    return max(1, chunk // f[0].numel()) if len(f) else 1


def p_z_given_x(h):
    """p(z|x) [B, 1, H, W] from h >= 0 [B, 1, H, W]; sums to 1 over z. Uniform if h = 0 everywhere (dead ReLU)."""
    total = h.sum(dim=(2, 3), keepdim=True).detach()  # [B, 1, 1, 1] detached: released behaviour, it shapes training
    dead = (total == 0).to(h.dtype)
    return h / (total + dead) + dead / (h.shape[2] * h.shape[3])


def log_p_z_given_x(h):
    """log p(z|x) [B, 1, H, W]; 1e-8 is added to values below 1e-8 first."""
    p_z = p_z_given_x(h)
    return torch.where(p_z < EPS_LOG_Z, p_z + EPS_LOG_Z, p_z).log()


def p_y_given_xz(f):
    """p(y|x,z) [B, C, H, W] from the class scores f [B, C, H, W]; sums to 1 over y."""
    return f.softmax(dim=1)


def p_yz_given_x(f, h):
    """p(y,z|x) [B, C, H, W]: the CALM attribution map of every class; sums to 1 over y and z."""
    return p_y_given_xz(f) * p_z_given_x(h)


def p_y_given_x(f, h):
    """p(y|x) [B, C]: the prediction, computed in chunks of images."""
    chunks = zip(f.split(_per_chunk(f)), h.split(_per_chunk(f)))
    return torch.cat([p_yz_given_x(*chunk).sum(dim=(2, 3)) for chunk in chunks])


def log_p_y_given_x(f, h):
    """log p(y|x) [B, C] = log sum_z p(y|x,z) p(z|x), computed in log space: finite however small p(y|x) is.

    This is the scalar that gradient methods explain, so the normaliser of p(z|x) is not detached here. Locations with h
    = 0 contribute neither to the sum nor to the gradient; if h = 0 everywhere, p(z|x) is uniform.
    """
    log_h = torch.where(h > 0, torch.where(h > 0, h, 1).log(), -torch.inf)  # inner where: no 0 * inf in backward
    log_h = torch.where((h > 0).any(dim=3, keepdim=True).any(dim=2, keepdim=True), log_h, 0)
    log_p_z = log_h.flatten(2).log_softmax(dim=2)  # [B, 1, HW]
    return (f.log_softmax(dim=1).flatten(2) + log_p_z).logsumexp(dim=2)  # [B, C]


def p_z_given_xy(f, h, p_y=None):
    """p(z|x,y) [B, C, H, W]: where the cue is, given the class. p_y: p(y|x) [B, C]; None: CALM's."""
    p_yz = p_yz_given_x(f, h)
    p_y = p_yz.sum(dim=(2, 3), keepdim=True) if p_y is None else p_y[:, :, None, None]
    return p_yz / (p_y + EPS_Y)


class _LogPLabelGivenXZ(torch.autograd.Function):
    """f_y - log sum_y' exp f_y' at each location. Recomputes p(y|x,z) in the backward pass: one buffer of f's size."""

    @staticmethod
    def forward(ctx, f, y):
        lse = torch.cat([chunk.logsumexp(dim=1, keepdim=True) for chunk in f.split(_per_chunk(f))])  # [B, 1, H, W]
        row = y.view(-1, 1, 1, 1).expand_as(lse)  # [B, 1, H, W]
        ctx.save_for_backward(f, lse, row)
        return (f.gather(1, row) - lse).squeeze(1)

    @staticmethod
    def backward(ctx, gradient):
        f, lse, row = ctx.saved_tensors
        gradient = gradient[:, None]  # [B, 1, H, W]
        if torch.is_grad_enabled():  # create_graph=True: use differentiable operations
            return (-gradient * f.softmax(dim=1)).scatter_add(1, row, gradient), None
        result = torch.sub(f, lse).exp_().mul_(-gradient)  # [B, C, H, W]
        return result.scatter_add_(1, row, gradient), None


def log_p_label_given_xz(f, y):
    """log p(y|x,z) of the label only [B, H, W]; autograd stores f and no other tensor [B, C, H, W]."""
    return _LogPLabelGivenXZ.apply(f, y)


def ml_loss(f, h, y):
    """-log p(y|x) per image [B] (paper, CALM-ML)."""
    p_yz = log_p_label_given_xz(f, y).exp() * p_z_given_x(h).squeeze(1)  # [B, H, W]
    return -p_yz.sum(dim=(1, 2)).log()


@torch.no_grad()  # the E step: p' is a constant of the M step
def _e_step(log_p_y, h):
    """p'(z|x,y) [B, H, W] from the label's log p(y|x,z) [B, H, W] and h."""
    p_yz = log_p_y.exp() * p_z_given_x(h).squeeze(1)  # [B, H, W]
    return p_yz / (p_yz.sum(dim=(1, 2), keepdim=True) + EPS_Y)  # [B, H, W]


def e_step(f, h, y):
    """p'(z|x,y) of the label [B, H, W], detached: the EM loss's weights of the locations."""
    return _e_step(log_p_label_given_xz(f, y), h)


def em_loss(f, h, y, posterior=None):
    """-sum_z p'(z|x,y) log p(y,z|x) per image [B] (paper, CALM-EM).

    posterior: p' [B, H, W] from other weights; None: from the current ones, and then the gradient equals the ML loss's
    up to the two epsilons (Fisher's identity).
    """
    log_p_y = log_p_label_given_xz(f, y)  # [B, H, W]
    if posterior is None:
        posterior = _e_step(log_p_y, h)
    return -(posterior * (log_p_y + log_p_z_given_x(h).squeeze(1))).sum(dim=(1, 2))
