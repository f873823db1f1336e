"""Shared by the pages of the studies: runs, figures, comparisons, and filling in a page.

A section `<!-- study: NAME -->` … `<!-- end -->` is replaced by Markdown generated from the results. Long tables are
CSV files in tables/ next to the page. Missing results are marked as not run.
"""

import argparse
import os

import util
from report import comparison, tables
from report.results import over_seeds, read_result, run_seeds
from report.samples import read_sample
from studies.steps import HEADS
from wsol.errors import UserError

FIGURES = (*tables.FIGURES, 'MaxBoxAccV2')
SCORES = ('top-1', 'cue per pair, mean', 'cue exact, mean', 'R_10', 'R_30', 'R_50', 'MaxBoxAccV2')


def runs(root, setting, heads, result='accuracy.json'):
    """{head: {seed: folder}} of a setting's runs that have a result ({map}: the head's map), in the order of heads."""
    found = {}
    for head in heads:
        name = result.format(map=HEADS[head].map)
        by_seed = run_seeds(os.path.join(root, setting, head))
        there = {seed: folder for seed, folder in by_seed.items() if read_result(os.path.join(folder, name))}
        if there:
            found[head] = there
    return found


def cue(folder, map_name):
    """A run's cue localization result for a map; {} if there is none."""
    return read_result(os.path.join(folder, f'cue_location_{map_name}.json'))


def figures(folder, map_name):
    """{column: figure} of a run; None: unknown."""
    _, values = tables.figures_of(folder, map_name)
    boxes = read_result(os.path.join(folder, f'wsol_{map_name}.json'))
    return {**dict(zip(tables.FIGURES, values)), 'MaxBoxAccV2': boxes.get('MaxBoxAccV2')}


def over_known(values):
    """`over_seeds` of the values that are known, with their number where some are not."""
    known = [value for value in values if value is not None]
    if not known:
        return '-'
    return over_seeds(known) + (f' ({len(known)} of {len(values)} seeds)' if len(known) < len(values) else '')


def mean_rows(found):
    """Rows [head, number of seeds, mean ± standard deviation over them for each of FIGURES]; found: from `runs`."""
    for head, by_seed in found.items():
        values = [figures(folder, HEADS[head].map) for folder in by_seed.values()]
        yield [head, str(len(values)), *(over_known([one.get(column) for one in values]) for column in FIGURES)]


def compared(a, b, map_a, map_b):
    """{score: 'B - A [interval]'} for two folders' maps; bold if the interval excludes 0."""
    cells = {}
    for kind in ('accuracy', 'cue_location', 'pixel_perturb', 'wsol'):
        samples = [read_sample(folder, kind, name) for folder, name in ((a, map_a), (b, map_b))]
        if None in samples:
            continue
        found = comparison.compare_samples(*samples, kind)
        for one, digits in zip(found.differences, found.digits):
            text = f'{one.difference:+.{digits}f}{tables.interval_text(one.interval, digits)}'
            sure = one.interval and not one.interval[0] <= 0 <= one.interval[1]
            cells.setdefault(one.name, f'**{text}**' if sure else text)
    return cells


def pair_rows(found, pairs, scores=SCORES):
    """Rows ['A, B', seed, B - A with 95 % interval for each score], for each seed that both heads of a pair have."""
    for a, b in pairs:
        for seed in sorted({*found.get(a, ())} & {*found.get(b, ())}):
            cells = compared(found[a][seed], found[b][seed], HEADS[a].map, HEADS[b].map)
            yield [f'{a}, {b}', str(seed), *(cells.get(name, '-') for name in scores)]


def filled(text, sections, root):
    """The page's text with regenerated sections; sections: {name: root -> pieces of Markdown}."""
    for name, make in sections.items():
        mark = f'<!-- study: {name} -->\n'
        if mark not in text:
            raise UserError(f'the page has no line "{mark.strip()}": its sections are {", ".join(sections)}')
        body = '\n\n'.join(make(root)) or 'Not run yet.'
        start = text.index(mark) + len(mark)
        text = f'{text[:start]}\n{body}\n\n{text[text.index("<!-- end -->", start) :]}'
    return text


def fill_page(description, save_root, page, sections, picture, draw, csv_files=None):
    """Command of a page: fill it in, write its tables/ and draw its picture.

    save_root, page: default values of the flags; sections: as in `filled`; csv_files: {name: root -> (columns, rows)}.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--save_root', default=save_root, metavar='DIR', help="folder of the study's results (default: %(default)s)"
    )
    parser.add_argument('--page', default=page, metavar='FILE', help='page to fill in (default: %(default)s)')
    args = parser.parse_args()
    if not os.path.isdir(args.save_root):
        raise UserError(f'no folder {args.save_root}: run the study, or give its --save_root')
    with open(args.page) as file:
        text = filled(file.read(), sections, args.save_root)
    util.atomically(args.page, lambda file: file.write(text.encode()))
    beside = os.path.dirname(args.page)
    for name, make in (csv_files or {}).items():
        columns, rows = make(args.save_root)
        if rows:
            os.makedirs(os.path.join(beside, 'tables'), exist_ok=True)
            util.write_text(os.path.join(beside, 'tables', name), tables.csv_text(columns, rows))
    draw(args.save_root, os.path.join(beside, picture))
