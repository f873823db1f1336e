"""The training objective: the losses of a batch, and the teacher that may give p' for the EM loss."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wsol.errors import UserError
from wsol.regularization import gradient_regularization

DTYPES = {'off': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class Objective(nn.Module):
    """images [B, 3, h, w], labels [B] -> (loss of each image [B], is it classified correctly [B]).

    precision: of the network (a key of DTYPES); losses are float32. gradient_reg: weight of the interpretable-gradient
    error in the loss (wsol/regularization.py).
    """

    def __init__(self, model, precision='off', gradient_reg=0, gradient_reg_error='cosine'):
        super().__init__()
        self.model = model
        self.dtype = DTYPES[precision]
        self.gradient_reg = gradient_reg
        self.error = gradient_reg_error

    def output(self, images):
        """The network's `Output`, in float32."""
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.model(images)
        return output.float()

    def forward(self, images, labels, posterior=None):
        """posterior: p'(z|x,y) of a teacher [B, H, W]; None: the network's own."""
        if self.gradient_reg:
            losses, errors, probs = gradient_regularization(self.output, images, labels, self.error)
            losses = losses + self.gradient_reg * errors
        else:
            output = self.output(images)
            losses = output.loss(labels, posterior)
            probs = output.probs
        return losses, probs.detach().argmax(dim=1) == labels


class Teacher:
    """A delayed copy of the network that computes p'(z|x,y) for CALM-EM.

    kind: 'epoch', the weights at the end of the last epoch, or 'ema', the running average decay w' + (1 - decay) w,
    updated after each step. Both start from the initial weights.
    The teacher sees the same images in the same mode as the student, so its batch norms use the batch (or the frozen
    statistics of --freeze_bn) and only the weights differ: decay 0 gives the current loss. The running statistics of
    its batch norms are never read. It costs a forward pass without gradients.
    """

    def __init__(self, model, kind, decay, precision='off'):
        if model.head.posterior is None:
            raise UserError(
                f"--em_teacher={kind} gives p'(z|x,y) to CALM-EM, which {model.attribution_method} does not use: "
                'leave it out, or give --attribution_method=CALM-EM'
            )
        self.kind = kind
        self.student = model
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay if kind == 'ema' else 0))
        copy = self.average.module.requires_grad_(False)
        self.average.update_parameters(model)  # the first update copies the weights
        self.objective = Objective(copy, precision)

    @torch.no_grad()
    def posterior(self, images, labels):
        """p'(z|x,y) of the labels [B, H, W]."""
        for own, other in zip(self.average.module.modules(), self.student.modules()):
            own.training = other.training
        return self.objective.output(images).posterior(labels)

    def after(self, kind):
        """Update the weights after a step ('ema') or an epoch ('epoch') if that is the teacher's kind."""
        if kind == self.kind:
            self.average.update_parameters(self.student)

    def state(self):
        """The state dict, for resuming."""
        return self.average.state_dict()

    def load(self, state):
        """Load a state dict; None, from a state without a teacher, is a UserError."""
        if state is None:
            raise UserError(f'the saved state has no teacher: continue without --em_teacher={self.kind}, or start over')
        self.average.load_state_dict(state)


def make_teacher(recipe, model):
    """The `Teacher` of a `training.Recipe`; None for the current weights."""
    if recipe.em_teacher == 'current':
        return None
    if recipe.gradient_reg:
        raise UserError('--gradient_reg takes the loss of the current weights: leave it out, or --em_teacher')
    return Teacher(model, recipe.em_teacher, recipe.em_decay, recipe.amp)
