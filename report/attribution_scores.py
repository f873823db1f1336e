"""Tables of attribution scores: Markdown and CSV, as eval_attribution.py writes them, and with intervals.

rows: {map name: {metric: figure or None, and what a map costs}}; metrics: {metric: its title and better side, such as a
row of scores.METRICS}.
"""

import os
from argparse import Namespace

from .results import MODES, SCORES, read_result
from .tables import csv_text, interval_text, markdown, number_text

COSTS = {  # of one map, means over the images: (title, digits)
    'seconds': ('seconds a map', 3),
    'forward_passes': ('forward passes', 1),
    'backward_passes': ('backward passes', 1),
}


def costs_in(rows):
    """The names of the COSTS that all rows have."""
    return [name for name in COSTS if rows and all(name in row for row in rows.values())]


def titles_of(costs):
    """Of COSTS."""
    return [COSTS[name][0] for name in costs]


def cost_texts(row, costs):
    """What a map costs, as the tables show it; costs: names of COSTS."""
    return [number_text(row[name], COSTS[name][1]) for name in costs]


def digits_of(metric):
    """Decimals of a metric's figures."""
    return 2 if metric.title.endswith('(%)') else 3


def score_text(value, metric):
    """A metric's figure as the tables show it."""
    return number_text(value, digits_of(metric))


def best_score(rows, name, metric):
    """The best figure of a metric, or None where none is defined."""
    known = [row[name] for row in rows.values() if row[name] is not None]
    best = max if metric.better == 'higher' else min
    return best(known) if known else None


def winners(rows, metrics):
    """{metric: the names of the maps that have its best figure, as far as the tables show it}."""
    found = {}
    for name, metric in metrics.items():
        best = score_text(best_score(rows, name, metric), metric)
        known = [map_name for map_name, row in rows.items() if row[name] is not None]
        found[name] = [map_name for map_name in known if score_text(rows[map_name][name], metric) == best]
    return found


def title_with_arrow(title, better):
    """A metric's title with the arrow to its better side ('higher' or 'lower')."""
    return f'{title} {"↑" if better == "higher" else "↓"}'


def scores_csv(rows, metrics):
    """Attribution scores, and what a map costs, as CSV: a row a map, full digits, nothing where a figure is not
    defined."""
    names = [*metrics, *costs_in(rows)]
    return csv_text(['method', *names], [[map_name, *(row[name] for name in names)] for map_name, row in rows.items()])


def scores_markdown(rows, metrics, note):
    """Attribution scores as Markdown, the best figure of each column in bold, and the note below it; the last columns
    are what a map costs."""
    costs = costs_in(rows)
    best = winners(rows, metrics)

    def cell(map_name, name):
        text = score_text(rows[map_name][name], metrics[name])
        return f'**{text}**' if map_name in best[name] else text

    lines = [
        ['method', *(title_with_arrow(metric.title, metric.better) for metric in metrics.values()), *titles_of(costs)],
        ['---', *('---:' for _ in (*metrics, *costs))],
        *(
            [map_name, *(cell(map_name, name) for name in metrics), *cost_texts(row, costs)]
            for map_name, row in rows.items()
        ),
    ]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + f'\n\n{note}\n'


# Of an experiment folder, with intervals.


def cue_cells(folder, map_name):
    """Cue localization of a map in an experiment folder: {mode: text}, of the modes that are known."""
    from .intervals import result_intervals  # NumPy and SciPy, where there is something to resample
    from .samples import cue_name

    result = read_result(os.path.join(folder, f'cue_location_{map_name}.json'))
    known = result_intervals(folder, 'cue_location', map_name) if result else {}
    return {
        mode: number_text(result[mode]['mean']) + interval_text(known.get(cue_name(mode)))
        for mode in MODES
        if mode in result
    }


def is_table(result):
    """Does a result hold figures of maps by score? Those of other programs may not."""
    return all(isinstance(result.get(name), dict) for name in ('metrics', 'methods'))


def score_rows(folder, result):
    """(head, rows of texts) of attribution scores in an experiment folder: each map's figures with their intervals, cue
    localization where the folder holds it, and what a map costs."""
    from .intervals import result_intervals

    maps = result['methods']
    metrics = {name: Namespace(**metric) for name, metric in result['metrics'].items()}
    costs = costs_in(maps)
    cues = {map_name: cue_cells(folder, map_name) for map_name in maps}
    modes = [mode for mode in MODES if any(mode in cells for cells in cues.values())]
    rows = []
    for map_name, row in maps.items():
        known = result_intervals(folder, 'attribution_scores', map_name)
        cells = [
            score_text(row.get(name), metric) + interval_text(known.get(name), digits_of(metric))
            for name, metric in metrics.items()
        ]
        rows.append([map_name, *cells, *(cues[map_name].get(mode, '-') for mode in modes), *cost_texts(row, costs)])
    titles = [title_with_arrow(metric.title, metric.better) for metric in metrics.values()]
    cue_titles = [title_with_arrow(f'cue {mode.replace("_", " ")} (%)', 'higher') for mode in modes]
    return ['method', *titles, *cue_titles, *titles_of(costs)], rows


def print_score_tables(folders):
    """The table of attribution scores of each experiment folder that has them."""
    for folder in folders:
        result = read_result(os.path.join(folder, SCORES))
        if is_table(result):
            print(f'\n{folder}:\n\n{markdown(*score_rows(folder, result))}\n\n{result.get("note", "")}')
