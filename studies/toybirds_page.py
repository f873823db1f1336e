"""Writes the figures of the ToyBirds study (studies/toybirds.py) into its page.

    python -m studies.toybirds_page [--save_root save/study] [--page docs/study.md]

Sections: `results` (cue localization of each head) and `progress` (finished runs). Next to the page it draws
study_cue.png and writes the full tables: tables/study_results.csv (all figures), study_differences.csv (pairs of heads
by seed, with intervals), study_contrast.csv (maps of a score difference) and study_width.csv (blurred maps).
"""

import os
import re

import numpy as np
from matplotlib.figure import Figure

import util
from engine.command import command
from report import tables
from report.results import MODES, read_result
from studies import page
from studies.page import SCORES, cue, figures
from studies.steps import HEADS as ALL_HEADS
from studies.toybirds import DESIGNS, NETWORKS, ON_A_CPU

HEADS = {  # head: its map, in the order of the tables
    head: ALL_HEADS[head].map
    for head in ('random', 'CAM', 'CAM-longer', 'CALM-ML', 'CALM-EM', 'CALM-EM-epoch', 'CALM-EM-ema')
}
PAIRS = (  # compared heads: A, B
    ('CAM', 'CALM-EM'),
    ('CAM-longer', 'CALM-EM'),
    ('CALM-ML', 'CALM-EM'),
    ('CALM-EM', 'CALM-EM-epoch'),
    ('CALM-EM', 'CALM-EM-ema'),
)
SEEDS = 3  # number of seeds in the study
PICTURE = 'study_cue.png'  # next to the page


def settings(root):
    """(network, design) of each setting with a folder."""
    for network in NETWORKS:
        for design in DESIGNS:
            if os.path.isdir(os.path.join(root, f'{network}-{design}')):
                yield network, design


def runs(root, network, design):
    """{head: {seed: folder}} of the trained runs, in the order of HEADS."""
    return page.runs(root, f'{network}-{design}', HEADS)


def results(root):
    """Cue localization, per pair and exact, of each head in each setting, and the picture."""
    there = list(settings(root))
    cells = {}
    for network, design in there:
        for row in page.mean_rows(runs(root, network, design)):
            known = dict(zip(page.FIGURES, row[2:]))
            cells[row[0], network, design] = f'{known["cue per pair"]} / {known["cue exact"]}'
    if cells:
        columns = [f'{network}-{design}' for network, design in there]
        rows = [[head, *(cells.get((head, *one), '-') for one in there)] for head in HEADS]
        yield tables.markdown(['head', *columns], [row for row in rows if any(cell != '-' for cell in row[1:])])
        yield f'![Cue localization of each head, one mark per seed]({PICTURE})'


def all_results(root):
    """(columns, rows) of all figures: mean ± standard deviation over the finished seeds."""
    rows = [
        [f'{network}-{design}', *row]
        for network, design in settings(root)
        for row in page.mean_rows(runs(root, network, design))
    ]
    return ['setting', 'head', 'seeds', *page.FIGURES], rows


def differences(root):
    """(columns, rows) of B - A with its 95 % interval, per setting and seed."""
    rows = [
        [f'{network}-{design}', *(cell.strip('*') for cell in row)]
        for network, design in settings(root)
        for row in page.pair_rows(runs(root, network, design), PAIRS)
    ]
    return ['setting', 'A, B', 'seed', *SCORES], rows


def folders(root, *heads):
    """(setting, head, seed, folder) of each trained run of these heads."""
    for network, design in settings(root):
        there = runs(root, network, design)
        for head in heads:
            for seed, folder in there.get(head, {}).items():
                yield f'{network}-{design}', head, str(seed), folder


def variants(folder, pattern):
    """(first group of the pattern, result) of each file in a folder whose name matches, sorted by name."""
    for name in sorted(os.listdir(folder)):
        if match := re.fullmatch(pattern, name):
            yield match[1], read_result(os.path.join(folder, name))


def mode_means(result):
    """Mean of a cue localization result in each mode; None: unknown."""
    return [result.get(mode, {}).get('mean') for mode in MODES]


def contrast(root):
    """(columns, rows): cue localization of maps of a score difference, and of differences of two maps."""
    rows = []
    for setting, head, seed, folder in folders(root, 'CAM', 'CALM-EM'):
        for name, of_score in variants(folder, r'cue_location_(\w+)_contrast\.json'):
            of_maps = cue(folder, name)
            figures = [figure for both in zip(mode_means(of_maps), mode_means(of_score)) for figure in both]
            rows.append([setting, head, seed, name, *map(tables.number_text, figures)])
    columns = [f'{mode.replace("_", " ")}, {kind}' for mode in MODES for kind in ('maps', 'score')]
    return ['setting', 'head', 'seed', 'map', *columns], rows


def width(root):
    """(columns, rows): cue localization and area of CAM's and CALM-EM's maps, unblurred and blurred."""
    rows = []
    for setting, head, seed, folder in folders(root, 'CAM', 'CALM-EM'):
        pattern = rf'cue_location_{HEADS[head]}_blur([\d.]+)\.json'
        wider = sorted(variants(folder, pattern), key=lambda one: float(one[0]))
        as_it_is = cue(folder, HEADS[head])
        for blur, found in [('-', as_it_is), *wider] if wider else []:
            area = 100 * found['area'] if 'area' in found else None
            rows.append([setting, seed, head, blur, *map(tables.number_text, [area, *mode_means(found)])])
    columns = [mode.replace('_', ' ') for mode in MODES]
    return ['setting', 'seed', 'head', 'blur (pixels)', 'area (%)', *columns], rows


def progress(root):
    """Finished and missing runs."""
    rows = []
    for network in ON_A_CPU:
        for design in DESIGNS:
            there = runs(root, network, design)
            rows.append([f'{network}-{design}', *(str(len(there.get(head, ()))) for head in HEADS)])
    made = sum(int(cell) for row in rows for cell in row[1:])
    table = tables.markdown(['setting', *HEADS], rows)
    asked = len(ON_A_CPU) * len(DESIGNS) * len(HEADS) * SEEDS
    yield f'{table}\n\nNumber of seeds; {made} of {asked} trainings are finished.'


def draw(root, path):
    """Plot cue localization: one panel per setting, one mark per seed, modes side by side."""
    there = list(settings(root))
    if not there:
        return
    figure = Figure(figsize=(4.2 * len(there), 3.4), layout='constrained')
    panels = figure.subplots(1, len(there), sharey=True, squeeze=False)[0]
    for axes, (network, design) in zip(panels, there):
        found = runs(root, network, design)
        for offset, mode, marker in zip((-0.2, 0, 0.2), MODES, 'os^'):
            points = [
                (x + offset, figures(folder, HEADS[head]).get(f'cue {mode.replace("_", " ")}'))
                for x, head in enumerate(found)
                for folder in found[head].values()
            ]
            known = np.array([point for point in points if point[1] is not None]).reshape(-1, 2)
            axes.plot(*known.T, marker, label=mode.replace('_', ' '), alpha=0.8)
        axes.set_xticks(range(len(found)), found, rotation=40, ha='right')
        axes.set_title(f'{network}-{design}', fontsize=10)
        axes.spines[['top', 'right']].set_visible(False)
    panels[0].set_ylabel('cue localization (%), higher is better')
    panels[0].legend(fontsize=8)
    util.atomically(path, lambda file: figure.savefig(file, format='png', dpi=130))


SECTIONS = {'results': results, 'progress': progress}
TABLES = {
    'study_results.csv': all_results,
    'study_differences.csv': differences,
    'study_contrast.csv': contrast,
    'study_width.csv': width,
}


def main():
    page.fill_page(__doc__, 'save/study', 'docs/study.md', SECTIONS, PICTURE, draw, TABLES)


if __name__ == '__main__':
    command(main)
