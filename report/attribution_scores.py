"""Tables of attribution scores: the Markdown and CSV of eval_attribution.py, and tables with intervals.

rows: {map name: {metric or cost: figure or None}}; metrics: {metric: object with `title` and `better`, such as a row of
scores.METRICS}.
"""

import os
from argparse import Namespace

from .results import MODES, SCORES, digits_of, read_result
from .tables import csv_text, interval_text, markdown, number_text

COSTS = {  # of one map, means over the images: (title, digits)
    'seconds': ('seconds a map', 3),
    'forward_passes': ('forward passes', 1),
    'backward_passes': ('backward passes', 1),
}


def costs_in(rows):
    """The keys of COSTS that all rows have."""
    return [name for name in COSTS if rows and all(name in row for row in rows.values())]


def titles_of(costs):
    return [COSTS[name][0] for name in costs]


def cost_texts(row, costs):
    """The costs of a map as text; costs: keys of COSTS."""
    return [number_text(row[name], COSTS[name][1]) for name in costs]


def score_text(value, metric):
    """A metric's figure as text."""
    return number_text(value, digits_of(metric))


def best_score(rows, name, metric):
    """The best figure of a metric; None if none is defined."""
    known = [row[name] for row in rows.values() if row[name] is not None]
    best = max if metric.better == 'higher' else min
    return best(known) if known else None


def winners(rows, metrics):
    """{metric: names of the maps with its best figure, after rounding}."""
    found = {}
    for name, metric in metrics.items():
        best = score_text(best_score(rows, name, metric), metric)
        known = [map_name for map_name, row in rows.items() if row[name] is not None]
        found[name] = [map_name for map_name in known if score_text(rows[map_name][name], metric) == best]
    return found


def title_with_arrow(title, better):
    """A metric's title with an arrow: better is 'higher' or 'lower'."""
    return f'{title} {"↑" if better == "higher" else "↓"}'


def scores_csv(rows, metrics):
    """Attribution scores and costs as CSV: a row per map, full precision, empty for undefined figures."""
    names = [*metrics, *costs_in(rows)]
    return csv_text(['method', *names], [[map_name, *(row[name] for name in names)] for map_name, row in rows.items()])


def scores_markdown(rows, metrics, note):
    """Attribution scores and costs as Markdown, the best figures in bold, with the note below."""
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


# Tables of an experiment folder, with intervals.


def cue_cells(folder, map_name):
    """Cue localization of a map in an experiment folder: {mode: text} for the modes of the result."""
    from .intervals import result_intervals  # loads NumPy and SciPy
    from .samples import cue_name

    result = read_result(os.path.join(folder, f'cue_location_{map_name}.json'))
    known = result_intervals(folder, 'cue_location', map_name) if result else {}
    return {
        mode: number_text(result[mode]['mean']) + interval_text(known.get(cue_name(mode)))
        for mode in MODES
        if mode in result
    }


def is_table(result):
    """Is a result a table of maps by metrics? Files of other programs may not be."""
    return all(isinstance(result.get(name), dict) for name in ('metrics', 'methods'))


def score_rows(folder, result):
    """(head, rows of texts) of the attribution scores in an experiment folder, with intervals and costs.

    Cue localization is included for maps that have it.
    """
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
    """Print the attribution scores of each experiment folder that has them."""
    for folder in folders:
        result = read_result(os.path.join(folder, SCORES))
        if is_table(result):
            print(f'\n{folder}:\n\n{markdown(*score_rows(folder, result))}\n\n{result.get("note", "")}')
