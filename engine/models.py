"""Builds the network of a command, with a checkpoint's weights, on a device."""

import os
from contextlib import contextmanager
from typing import NamedTuple

import torch

import util
import wsol
from data import folders
from engine.objective import DTYPES
from wsol import classifiers, preprocessing
from wsol.errors import UserError
from wsol.network import Forward, Network


class Spec(NamedTuple):
    """The flags that describe a network."""

    architecture: str  # a name of wsol.ARCHITECTURES, or timm/<name>
    attribution_method: str  # its head: a name of wsol.network.HEADS
    large_feature_map: bool
    use_bn: bool
    pretrained: bool  # start from ImageNet weights if no checkpoint is loaded
    channels_last: bool  # memory format
    compile: bool  # by torch.compile


class Speed(NamedTuple):
    """The flags for the speed of inference; all off is exact."""

    amp: str  # mixed precision: a key of objective.DTYPES
    channels_last: bool
    compile: bool


EXACT = Speed('off', False, False)


class Source(NamedTuple):
    """The flags that locate a checkpoint."""

    use_load_checkpoint: bool
    load_checkpoint: str | None  # a file or folder; None: the experiment folder's own
    log_folder: str  # the experiment folder
    save_root: str

    def path(self):
        """The checkpoint file; None if none is requested, MissingFile if it does not exist."""
        if not self.use_load_checkpoint:
            return None
        return util.find_checkpoint(self.load_checkpoint or self.log_folder, self.save_root)


def metadata_root(args, checkpoint=None):
    """The folder of the split files.

    For a folder of photographs, the first of the checkpoint's folder, --metadata_root and the experiment folder that
    has a split.json.
    """
    if args['dataset'] != folders.NAME:
        return args['metadata_root']
    own = os.path.dirname(checkpoint) if checkpoint else None
    return folders.locate(own, args['metadata_root'], args['log_folder'])


def load_model(spec, num_classes, device, checkpoint=None, weights=True):
    """The network of a `Spec` on `device`, with the weights of the checkpoint file if one is given.

    A checkpoint of another architecture, head, map size or class count is a UserError. weights=False loads no
    pretrained weights either, for a state that is loaded later. `preprocessing` is the checkpoint's, that of the
    pretrained weights, or the paper's. `class_names` are the checkpoint's: files of scripts/export_head.py have them.
    """
    if not checkpoint:
        return _placed(_build(spec, num_classes, spec.pretrained and weights), spec, device)
    record = util.read_checkpoint(checkpoint, spec.architecture, spec.attribution_method, spec.large_feature_map)
    model = _build(spec, num_classes)
    with _naming(checkpoint):
        wsol.load_trained_weights(model, record['state_dict'], spec.architecture)
    model.preprocessing = preprocessing.from_record(util.trained_with(record).get('preprocessing'))
    model.class_names = record.get('class_names')
    return _placed(model, spec, device)


def start_model(spec, num_classes, device, checkpoint, drop_conv_last):
    """(network of a `Spec` on `device` for training from a checkpoint file, lines that list what was loaded).

    The checkpoint may have another head, map size or class count, or come from another code base: all weights that fit
    are loaded (`wsol.start_weights`), except conv_last with `drop_conv_last` (--is_different_checkpoint).
    """
    record = util.read_checkpoint(
        checkpoint, spec.architecture, spec.attribution_method, spec.large_feature_map, start=True
    )
    model = _build(spec, num_classes)
    with _naming(checkpoint):
        lines = wsol.start_weights(model, record['state_dict'], spec.architecture, drop_conv_last)
    model.preprocessing = preprocessing.from_record(util.trained_with(record).get('preprocessing'))
    return _placed(model, spec, device), [f'starts from {checkpoint}: {_described(record)}', *lines]


def for_inference(model, speed):
    """The model in eval mode, run with a `Speed`.

    Mixed precision applies to the backbone only: its features F, and so f, h and all readouts, are float32. A compiled
    network treats weights as constants where no gradient is needed. Methods that use hooks run uncompiled.
    """
    model = model.eval()
    if speed == EXACT:
        return model
    if speed.compile and not isinstance(model, Network):
        raise UserError('--compile is for networks of this project: leave it out with this --classifier')
    if speed.channels_last:
        model.to(memory_format=torch.channels_last)
    layout = torch.channels_last if speed.channels_last else torch.contiguous_format
    function = model.run.function
    if speed.compile:
        function = torch.compile(function, options={'freezing': True})
    model.run = Forward(function, None if speed.amp == 'off' else DTYPES[speed.amp], layout)
    return model


def load_trained(classifier, architecture, num_classes, device):
    """(a trained classifier (wsol/classifiers.py) on `device`, the side of its images).

    num_classes: another class count is a UserError; None allows any.
    """
    model = classifiers.load_classifier(classifier, architecture)
    if num_classes not in (None, model.num_classes):
        raise UserError(
            f'--classifier={classifier} has {model.num_classes} classes, the data set has {num_classes}: give the '
            'data set that it was trained on, or train it with main.py'
        )
    return model.to(device), model.image_size


def _build(spec, num_classes, pretrained=False):
    return wsol.build_model(
        spec.architecture, spec.attribution_method, num_classes, spec.large_feature_map, spec.use_bn, pretrained
    )


@contextmanager
def _naming(checkpoint):
    """A context that puts the file's name before the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{checkpoint}: {error}') from None


def _placed(model, spec, device):
    """The model on its device, in the memory format of the `Spec`, compiled if it says so."""
    model = model.to(device, memory_format=torch.channels_last if spec.channels_last else torch.contiguous_format)
    if spec.compile:
        model.run = Forward(torch.compile(model.run.function))
    return model


def _described(record):
    """A text on the training that a checkpoint's record comes from."""
    trained = util.trained_with(record)
    large = trained.get('large_feature_map')
    facts = {
        'method': trained.get('attribution_method'),
        'map size': None if large is None else f'--large_feature_map={large}',
        'epoch': None if record.get('epoch') is None else f'epoch {record["epoch"]}',
    }
    known = ', '.join(str(fact) for fact in facts.values() if fact is not None)
    missing = ', '.join(name for name, fact in facts.items() if fact is None)
    return '; '.join([*([known] if known else []), *([f'it does not record its {missing}'] if missing else [])])
