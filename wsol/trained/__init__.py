"""Trained heads shipped with the library, available as packaged/NAME wherever a checkpoint or classifier is named.

One row of TRAINED per file in this folder, made from a checkpoint by `scripts/export_head.py`. The hash is checked
before reading.
"""

import os
from typing import NamedTuple

from ..backbones import backbone_module
from ..network import Network
from ..preprocessing import from_record
from ..registry import lookup
from ..weights import check_file, load_trained_weights, read_record

PREFIX = 'packaged/'
FOLDER = os.path.dirname(os.path.abspath(__file__))


class Trained(NamedTuple):
    """A trained head."""

    file: str  # name in this folder
    sha256: str
    origin: str  # initial weights, training data, accuracy
    licence: str


TRAINED = {
    'CALM-EM_CUB_lite0': Trained(
        'CALM-EM_CUB_lite0.pth.tar',
        '0f9b1aed2717192f2a774cad1de33a4cec19764bad79e174f533166b0131ff38',
        'timm/tf_efficientnet_lite0 with ImageNet weights at 160 px on the 5594 training photographs of CUB-200-2011: '
        '8 epochs of CAM, then 4 of CALM-EM; 58.3 % of 5794 test photographs right',
        'weights only, made from Apache-2.0 weights and from photographs that are for non-commercial research and '
        'education: use them for that',
    )
}


def file_of(name):
    """Path of the head packaged/NAME; raises UserError for an unknown name or a file with another hash."""
    row = lookup({PREFIX + one: row for one, row in TRAINED.items()}, name, 'packaged head')
    path = os.path.join(FOLDER, row.file)
    check_file(path, row.sha256, 'packaged', 'install the library again')
    return path


def load(name):
    """The `Network` of the head packaged/NAME in eval mode, with its preprocessing, image_size and class_names."""
    record = read_record(file_of(name))
    args = record['args']
    architecture = args['architecture']
    backbone, channels, _ = backbone_module(architecture).backbone(
        architecture, args['large_feature_map'], args['use_bn'], None
    )
    model = Network(backbone, channels, len(record['class_names']), args['attribution_method'])
    load_trained_weights(model, record['state_dict'], architecture)
    model.preprocessing = from_record(args.get('preprocessing'))
    model.image_size = args['crop_size']
    model.class_names = record['class_names']
    return model.eval()
