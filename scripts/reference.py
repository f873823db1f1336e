"""Writes the tables of all attribution maps and scores in docs/evaluating.md, between the comments START and END.

    python scripts/reference.py

The tables are generated from the registries.
"""

import argparse
import os

import checkout

import util
from report.tables import markdown
from wsol.attribution import MAPS
from wsol.scoring.scores import METRICS

PAGE = os.path.join(checkout.ROOT, 'docs', 'evaluating.md')
START = '<!-- made by scripts/reference.py: begin -->'
END = '<!-- made by scripts/reference.py: end -->'
TRUTHS = {None: '', 'box': 'boxes', 'mask': 'masks', 'any': 'boxes or masks'}


def maps_table():
    """One row per map."""
    rows = []
    for name, row in MAPS.items():
        passes = row.forward if row.backward == '0' else f'{row.forward}, {row.backward} back'
        noise = ' (random)' if row.noisy else ''
        rows.append([f'`{name}`', f'{row.idea}{noise}', passes, ', '.join(row.needs) or 'nothing', row.source])
    return markdown(['map', 'its idea', 'passes', 'what it needs', 'source'], rows)


def scores_table():
    """One row per score."""
    rows = []
    for name, metric in METRICS.items():
        needs = '; '.join(filter(None, [TRUTHS[metric.truth], 'its name in `--metrics`' if metric.extra else '']))
        rows.append([f'`{name}`', metric.title, f'{metric.better} is better', needs or 'nothing', metric.source])
    return markdown(['score', 'in tables', 'direction', 'what it needs', 'source'], rows)


def section():
    """The text between START and END."""
    return (
        f'{START}\n\n{maps_table()}\n\n'
        'Passes: forward and backward passes of the network per map of one image. L: channels of the layer; n:\n'
        'points, copies, steps or masks; G: groups of channels; W: squares. For a map of a layer, backward passes\n'
        'stop at that layer.\n\n'
        f'{scores_table()}\n\n{END}'
    )


def renewed(page):
    """The page's text with its section regenerated."""
    before, rest = page.split(START)
    return before + section() + rest.split(END)[1]


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with open(PAGE, encoding='utf-8') as file:
        page = file.read()
    util.write_text(PAGE, renewed(page))


if __name__ == '__main__':
    main()
