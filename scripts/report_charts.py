"""Tables, and line and bar charts as inline SVG, for report_html.py, a chart with a legend and its numbers as a table underneath.

Colours come from the page's style sheet (classes c0 … c7), so that a chart fits the light and the dark page. Lines are told apart
by colour, marker and dash. Everything that enters is escaped here.
"""

import json
import math
from collections import namedtuple
from html import escape

Series = namedtuple('Series', 'name points style dashed', defaults=(False,))
Series.__doc__ = 'A line: its name, [(x, y)], the number of its colour and marker, and whether it is dashed.'

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 240, 50, 10, 12, 40
COLOURS = 8
MARKERS = (
    'M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0',
    'M-3,-3h6v6h-6z',
    'M0,-4l4,7h-8z',
    'M0,-4l4,4l-4,4l-4,-4z',
)  # around 0,0


def number(value, digits=4):
    """A number as the page shows it; '-' for what is none or not finite."""
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return f'{value:.{digits}g}' if finite else '-'


def table(head, rows, more=(), label=''):
    """A table; the first column is each row's header. `more`: rows of a second body."""
    line = lambda row: (
        f'<tr><th scope="row">{escape(str(row[0]))}</th>'
        + ''.join(f'<td>{escape(str(cell))}</td>' for cell in row[1:])
        + '</tr>'
    )
    body = '<tbody>' + ''.join(map(line, rows)) + '</tbody>'
    if more:
        body += '<tbody class="published">' + ''.join(map(line, more)) + '</tbody>'
    columns = ''.join(f'<th scope="col">{escape(str(cell))}</th>' for cell in head)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label or str(head[0]))}"><table><thead>'
        f'<tr>{columns}</tr></thead>{body}</table></div>'
    )


def generic_tables(value, name=''):
    """Tables of whatever an object holds: a list or dict of objects as rows, what is left as pairs; 'arguments' is left out."""
    long = lambda one: isinstance(one, (list, dict)) and len(one) > 8
    cell = lambda one: (
        number(one)
        if isinstance(one, float)
        else f'{len(one)} values'
        if long(one)
        else json.dumps(one, ensure_ascii=False)
        if isinstance(one, (list, dict))
        else str(one)
    )
    pairs, parts = [], []
    for key, one in value.items():
        title = f'{name}, {key}'.removeprefix(', ')
        rows = list(enumerate(one, 1)) if isinstance(one, list) else list(one.items()) if isinstance(one, dict) else []
        if rows and all(isinstance(row, dict) for _, row in rows) and key != 'arguments':
            columns = list(dict.fromkeys(column for _, row in rows for column in row))
            lines = [[at, *(cell(row[c]) if c in row else '-' for c in columns)] for at, row in rows]
            parts.append(table((title, *columns), lines, label=title))
        elif isinstance(one, dict) and one and key != 'arguments':
            parts += generic_tables(one, title)
        elif key != 'arguments':
            pairs.append([key, cell(one)])
    return ([table((name or 'name', 'value'), pairs, label=name or 'Values')] if pairs else []) + parts


def ticks(low, high):
    """About five round values from low to high."""
    rough = (high - low) / 5
    base = 10 ** math.floor(math.log10(rough))
    step = base * next(factor for factor in (1, 2, 5, 10) if factor * base >= rough)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class Axis:
    """Values to positions along an axis, linear or logarithmic (whole decades), and its tick values."""

    def __init__(self, values, start, end, log=False, bottom=None):
        self.start, self.end, self.log = start, end, log
        low, high = min(values), max(values)
        if log:
            low, high = math.floor(math.log10(low)), math.ceil(math.log10(high))
            self.low, self.high = low, max(high, low + 1)
            self.ticks = [10.0**n for n in range(self.low, self.high + 1)]
            return
        low = low if bottom is None else min(low, bottom)
        if low == high:
            low, high = low - 0.5, high + 0.5
        self.low, self.high = low, high + 0.04 * (high - low)
        self.ticks = ticks(low, self.high)

    def __call__(self, value):
        value = math.log10(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def frame(x_label, y_label, y_axis, x_ticks):
    """Grid, tick labels and axis titles; x_ticks: [(position, text)]."""
    parts = []
    for value in y_axis.ticks:
        y = y_axis(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    for x, text in x_ticks:
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">{escape(y_label)}</text>'
    )
    return ''.join(parts)


def figure(title, drawing, entries, numbers):
    """A titled chart. entries: [(name, swatch)] of the legend; numbers: the table."""
    legend = ''.join(
        f'<li><svg class="swatch" viewBox="0 0 28 10" aria-hidden="true">{swatch}</svg>{escape(name)}</li>'
        for name, swatch in entries
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}; the numbers are in the table below">'
        f'{drawing}</svg><ul class="legend">{legend}</ul><details><summary>Numbers of this chart</summary>{numbers}</details>'
        '</figure>'
    )


def stroke(one):
    """The class and dash of a line."""
    return f'class="line c{one.style % COLOURS}"' + (' stroke-dasharray="5 4"' if one.dashed else '')


def marker(one, x, y):
    """The marker of a line at a position."""
    shape = MARKERS[one.style % len(MARKERS)]
    return f'<path class="mark c{one.style % COLOURS}" transform="translate({x:.1f} {y:.1f})" d="{shape}"/>'


def line_chart(title, x_label, y_label, series, bottom=None, log=False, level=None):
    """Lines over a common x; a point whose y is missing, not finite or (log) not positive is left out.

    bottom: a value that the axis shows at least; level: a reference line at y.
    """
    usable = lambda y: number(y) != '-' and (y > 0 or not log)
    kept = [one._replace(points=[point for point in one.points if usable(point[1])]) for one in series]
    shown = [one for one in kept if one.points]
    numbers = table(
        [x_label, *(one.name for one in series)],
        [
            [number(x), *(number(dict(one.points).get(x)) for one in series)]
            for x in sorted({x for one in series for x, _ in one.points})
        ],
        label=f'Numbers: {title}',
    )
    if not shown:
        return f'<p class="missing">{escape(title)}: no number to draw.</p>'
    xs, ys = ([point[i] for one in shown for point in one.points] for i in (0, 1))
    x_axis = Axis(xs, LEFT + 8, WIDTH - RIGHT - 8)
    y_axis = Axis(ys + ([level] if level is not None else []), HEIGHT - BOTTOM, TOP, log, bottom)
    whole = [value for value in x_axis.ticks if value == int(value)]
    drawing = frame(x_label, y_label, y_axis, [(x_axis(value), number(value)) for value in whole])
    if level is not None:
        drawing += (
            f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_axis(level):.1f}" y2="{y_axis(level):.1f}"/>'
        )
    for one in shown:
        points = [(x_axis(x), y_axis(y)) for x, y in one.points]
        path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
        drawing += f'<polyline {stroke(one)} points="{path}"/>' + ''.join(marker(one, x, y) for x, y in points)
    return figure(
        title,
        drawing,
        [(one.name, f'<line {stroke(one)} x1="0" x2="28" y1="5" y2="5"/>{marker(one, 14, 5)}') for one in shown],
        numbers,
    )


def bar_chart(title, x_label, y_label, groups, series):
    """Bars from zero: groups are names on the x axis, series [(name, [value of each group], style)]; None leaves a gap."""
    values = [value for _, row, _ in series for value in row if number(value) != '-']
    if not values:
        return f'<p class="missing">{escape(title)}: no number to draw.</p>'
    axis = Axis([*values, 0], HEIGHT - BOTTOM, TOP)
    room = (WIDTH - RIGHT - LEFT) / len(groups)
    width = 0.84 * room / len(series)
    middles = [LEFT + room * (n + 0.5) for n in range(len(groups))]
    drawing = frame(x_label, y_label, axis, list(zip(middles, groups)))
    for n, (_, row, style) in enumerate(series):
        for middle, value in zip(middles, row):
            if number(value) != '-':
                x, y = middle + width * (n - len(series) / 2), min(axis(value), axis(0))
                drawing += (
                    f'<rect class="bar c{style % COLOURS}" x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(width - 1, 1):.1f}" '
                    f'height="{abs(axis(value) - axis(0)):.1f}"/>'
                )
    rows = [[name, *(number(value) for value in row)] for name, row, _ in series]
    numbers = table([x_label, *groups], rows, label=f'Numbers: {title}')
    return figure(
        title,
        drawing,
        [(name, f'<rect class="bar c{style % COLOURS}" x="8" width="12" height="10"/>') for name, _, style in series],
        numbers,
    )
