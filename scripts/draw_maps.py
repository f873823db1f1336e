"""Draws the maps of several experiments next to the true parts, in one picture.

    python scripts/draw_maps.py --experiments save/quickstart/CAM save/quickstart/CALM-EM --output maps.png

Each row is a test image: per experiment the maps of two classes and their difference.
"""

import argparse

import checkout  # noqa: F401 (the checkout's root on the path)

from engine.command import command
from report.figures import write_pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--experiments', nargs='+', required=True, metavar='FOLDER', help='experiment folders with a checkpoint'
    )
    parser.add_argument('--output', required=True, metavar='FILE.png', help='the picture; overwrites an existing file')
    parser.add_argument('--images', type=int, default=5, help='rows')
    options = parser.parse_args()
    write_pairs(options.output, options.experiments, options.images)


if __name__ == '__main__':
    command(main)
