"""Shared by the scripts on data sets: common flags and git blob ids."""

import argparse
import hashlib
import os

from checkout import ROOT

from config import Parser


def data_parser(description, datasets, roots=('data_root', 'metadata_root')):
    """A parser with --dataset and the folders `roots`, by default those of the checkout."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', required=True, choices=tuple(datasets))
    for name in roots:
        folder = {'data_root': 'dataset', 'metadata_root': 'metadata'}[name]
        parser.add_argument(f'--{name}', default=os.path.join(ROOT, folder), help=f'default: {folder} of the checkout')
    return parser


def git_blob(data):
    """The git blob id of a file with these bytes."""
    return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()
