"""Networks as a command asks for them: built, with a checkpoint's weights, on a device."""

from typing import NamedTuple

import torch

import util
import wsol
from wsol import classifiers, preprocessing
from wsol.errors import UserError


class Spec(NamedTuple):
    """The network that a command's flags of these names describe."""

    architecture: str  # a name of wsol.ARCHITECTURES, or timm/<name>
    attribution_method: str  # its head: a name of wsol.network.HEADS
    large_feature_map: bool
    use_bn: bool
    pretrained: bool  # start from ImageNet weights where no checkpoint is loaded
    channels_last: bool  # memory format
    compile: bool  # by torch.compile


class Source(NamedTuple):
    """Where the flags of these names say that a checkpoint is."""

    use_load_checkpoint: bool
    load_checkpoint: str | None  # a file or folder; None: the experiment folder's own
    log_folder: str  # the experiment folder
    save_root: str

    def path(self):
        """The checkpoint file, None where none is asked for; one that is not there is a MissingFile."""
        if not self.use_load_checkpoint:
            return None
        return util.find_checkpoint(self.load_checkpoint or self.log_folder, self.save_root)


def load_model(spec, num_classes, device, checkpoint=None, other_head=False, weights=True):
    """The network of a `Spec` on `device`, with the weights of the checkpoint file where one is given.

    other_head: the checkpoint may be of another head, and conv_last is not taken from it (--is_different_checkpoint).
    weights=False leaves the network untrained, for a state that is loaded afterwards. Its `preprocessing` is that of
    the checkpoint, of pretrained weights, or the paper's.
    """
    record = None
    if checkpoint and weights:
        record = util.read_checkpoint(
            checkpoint, spec.architecture, spec.attribution_method, spec.large_feature_map, other_head
        )
    model = wsol.build_model(
        spec.architecture,
        spec.attribution_method,
        num_classes,
        spec.large_feature_map,
        spec.use_bn,
        pretrained=spec.pretrained and weights and not record,
    )
    if record:
        try:
            wsol.load_weights(model, record['state_dict'], drop_conv_last=other_head)
        except UserError as error:
            raise UserError(f'{checkpoint}: {error}; check --dataset, --architecture and --use_bn') from None
        model.preprocessing = preprocessing.from_record(record.get('args', {}).get('preprocessing'))
    model = model.to(device, memory_format=torch.channels_last if spec.channels_last else torch.contiguous_format)
    if spec.compile:
        model.forward_features = torch.compile(model.forward_features)
    return model


def load_trained(classifier, architecture, num_classes, device):
    """(a trained classifier (wsol/classifiers.py) on `device`, the side of its images); one of another class count than
    num_classes is a UserError, None takes any."""
    model, size = classifiers.load_classifier(classifier, architecture)
    if num_classes not in (None, model.num_classes):
        raise UserError(
            f'--classifier={classifier} knows {model.num_classes} classes, the data set has {num_classes}: give the '
            'data set that it was trained on, or train it with main.py'
        )
    return model.to(device), size
