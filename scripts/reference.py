"""Writes the tables of every attribution map and every score into docs/evaluating.md.

    python scripts/reference.py

They are made from the registries, so that the page says what the code does.
"""

import argparse
import os

import checkout

import util
from report import reference

PAGE = os.path.join(checkout.ROOT, 'docs', 'evaluating.md')


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with open(PAGE, encoding='utf-8') as file:
        page = file.read()
    util.write_text(PAGE, reference.renewed(page))


if __name__ == '__main__':
    main()
