"""Trained heads that come with the library, known as packaged/NAME wherever a checkpoint or a classifier is named.

One row of TRAINED a file of this folder, which `scripts/export_head.py` makes of a checkpoint. It is checked by its
hash before it is read.
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

    file: str  # its name in this folder
    sha256: str
    origin: str  # what it was trained on, from what, and how well it does
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
    """The file of a head packaged/NAME; an unknown name, or a file that is another, is a UserError."""
    row = lookup({PREFIX + one: row for one, row in TRAINED.items()}, name, 'packaged head')
    path = os.path.join(FOLDER, row.file)
    check_file(path, row.sha256, 'packaged', 'install the library again')
    return path


def load(name):
    """The `Network` of a head packaged/NAME, in eval mode, with its preprocessing, image_size and class_names."""
    record = read_record(file_of(name))
    told = record['args']
    architecture = told['architecture']
    backbone, channels, _ = backbone_module(architecture).backbone(
        architecture, told['large_feature_map'], told['use_bn'], None
    )
    model = Network(backbone, channels, len(record['class_names']), told['attribution_method'])
    load_trained_weights(model, record['state_dict'], architecture)
    model.preprocessing = from_record(told.get('preprocessing'))
    model.image_size = told['crop_size']
    model.class_names = record['class_names']
    return model.eval()
