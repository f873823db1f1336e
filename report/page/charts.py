"""Line and bar charts as inline SVG, each with a legend and a table of its numbers.

Colours are classes of the page's style sheet (c0 … c7), for light and dark mode. Lines differ in colour, marker and
dash. All input is escaped here.
"""

import math
from html import escape
from typing import NamedTuple

from .markup import html_table, number


class Series(NamedTuple):
    """A line of a chart."""

    name: str
    points: list  # [(x, y)]
    style: int  # number of its colour and marker
    dashed: bool = False
    intervals: dict | None = None  # {x: (low, high) or None}


class Bars(NamedTuple):
    """A series of bars, one per group."""

    name: str
    values: list  # None leaves a gap
    style: int  # number of their colour
    intervals: list | None = None  # (low, high) or None for each value


WIDTH = 380
HEIGHT = 240
LEFT = 50  # margins
RIGHT = 10
TOP = 12
BOTTOM = 40
COLOURS = 8
MARKERS = (  # SVG paths around 0,0
    'M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0',
    'M-3,-3h6v6h-6z',
    'M0,-4l4,7h-8z',
    'M0,-4l4,4l-4,4l-4,-4z',
)


def ticks(low, high):
    """About five round values from low to high."""
    rough = (high - low) / 5
    base = 10 ** math.floor(math.log10(rough))
    step = base * next(factor for factor in (1, 2, 5, 10) if factor * base >= rough)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class Axis:
    """Maps values to positions, linearly or logarithmically (whole decades); has `ticks`."""

    def __init__(self, values, start, end, log=False, bottom=None):
        self.start = start
        self.end = end
        self.log = log
        low = min(values)
        high = max(values)
        if log:
            self.low = math.floor(math.log10(low))
            self.high = max(math.ceil(math.log10(high)), self.low + 1)
            self.ticks = [10.0**n for n in range(self.low, self.high + 1)]
            return
        low = low if bottom is None else min(low, bottom)
        if low == high:
            low -= 0.5
            high += 0.5
        self.low = low
        self.high = high + 0.04 * (high - low)
        self.ticks = ticks(low, self.high)

    def __call__(self, value):
        value = math.log10(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def draw_frame(x_label, y_label, y_axis, x_ticks):
    """Grid, tick labels and axis titles as SVG; x_ticks: [(position, text)]."""
    pieces = []
    for value in y_axis.ticks:
        y = y_axis(value)
        pieces.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    for x, text in x_ticks:
        pieces.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    pieces.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">{escape(y_label)}</text>'
    )
    return ''.join(pieces)


def titled_chart(title, drawing, entries, numbers):
    """A chart with its title. drawing: SVG; entries: [(name, swatch)] of the legend; numbers: the table."""
    legend = ''.join(
        f'<li><svg class="swatch" viewBox="0 0 28 10" aria-hidden="true">{swatch}</svg>{escape(name)}</li>'
        for name, swatch in entries
    )
    spoken = f'{escape(title)}; the numbers are in the table below'
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken}">{drawing}</svg>'
        f'<ul class="legend">{legend}</ul>'
        f'<details><summary>Numbers of this chart</summary>{numbers}</details></figure>'
    )


def empty_chart(title):
    """A placeholder for a chart without data."""
    return f'<p class="missing">{escape(title)}: no number to draw.</p>'


def line_style(series):
    """The SVG attributes of a line."""
    return f'class="line c{series.style % COLOURS}"' + (' stroke-dasharray="5 4"' if series.dashed else '')


def draw_marker(series, x, y):
    """The marker of a line at a position."""
    shape = MARKERS[series.style % len(MARKERS)]
    return f'<path class="mark c{series.style % COLOURS}" transform="translate({x:.1f} {y:.1f})" d="{shape}"/>'


def draw_interval(axis, interval, x, colour=''):
    """An error bar; colour: its CSS class."""
    if not interval:
        return ''
    low, high = (axis(value) for value in interval)
    return f'<path class="interval {colour}" d="M{x:.1f},{low:.1f}V{high:.1f}m-3,0h6M{x - 3:.1f},{low:.1f}h6"/>'


def draw_line(series, x_axis, y_axis, shift=0):
    """A line with markers and intervals, shifted to the right by `shift`."""
    points = [(x_axis(x) + shift, y_axis(y)) for x, y in series.points]
    path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
    markers = ''.join(draw_marker(series, x, y) for x, y in points)
    known = series.intervals or {}
    colour = f'c{series.style % COLOURS}'
    bounds = ''.join(draw_interval(y_axis, known.get(x), x_axis(x) + shift, colour) for x, _ in series.points)
    return f'<polyline {line_style(series)} points="{path}"/>{bounds}{markers}'


def drawable(value, log=False):
    """Is the value a finite number, and positive on a logarithmic axis?"""
    return number(value) != '-' and (value > 0 or not log)


def with_interval(value, interval):
    """A number as text, with its interval if there is one."""
    return number(value) + (f' [{number(interval[0])}, {number(interval[1])}]' if interval else '')


def numbers_of_lines(title, x_label, series):
    """The table of a line chart: a row per x, a column per line."""
    rows = [
        [number(x), *(with_interval(dict(one.points).get(x), (one.intervals or {}).get(x)) for one in series)]
        for x in sorted({x for one in series for x, _ in one.points})
    ]
    return html_table([x_label, *(one.name for one in series)], rows, label=f'Numbers: {title}')


def line_chart(title, x_label, y_label, series, bottom=None, log=False, level=None):
    """A chart of lines; points whose y is missing, not finite or (log) not positive are skipped.

    bottom: a value that the y axis must include; level: y of a reference line.
    """
    kept = [one._replace(points=[point for point in one.points if drawable(point[1], log)]) for one in series]
    shown = [one for one in kept if one.points]
    if not shown:
        return empty_chart(title)
    xs = [x for one in shown for x, _ in one.points]
    ys = [y for one in shown for _, y in one.points]
    ys += [end for one in shown for x, _ in one.points for end in (one.intervals or {}).get(x) or ()]
    x_axis = Axis(xs, LEFT + 8, WIDTH - RIGHT - 8)
    y_axis = Axis(ys if level is None else [*ys, level], HEIGHT - BOTTOM, TOP, log, bottom)
    whole = [value for value in x_axis.ticks if value == int(value)]
    drawing = draw_frame(x_label, y_label, y_axis, [(x_axis(value), number(value)) for value in whole])
    if level is not None:
        y = f'{y_axis(level):.1f}'
        drawing += f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
    apart = 3 if any(one.intervals for one in shown) else 0  # keeps intervals apart
    drawing += ''.join(
        draw_line(one, x_axis, y_axis, apart * (n - (len(shown) - 1) / 2)) for n, one in enumerate(shown)
    )
    legend = [
        (one.name, f'<line {line_style(one)} x1="0" x2="28" y1="5" y2="5"/>{draw_marker(one, 14, 5)}') for one in shown
    ]
    return titled_chart(title, drawing, legend, numbers_of_lines(title, x_label, series))


def draw_bar(axis, value, x, width, style):
    """A bar from zero to a value; x: its left side."""
    top = min(axis(value), axis(0))
    height = abs(axis(value) - axis(0))
    return (
        f'<rect class="bar c{style % COLOURS}" x="{x + 0.5:.1f}" y="{top:.1f}" width="{max(width - 1, 1):.1f}" '
        f'height="{height:.1f}"/>'
    )


def bar_chart(title, x_label, y_label, groups, series):
    """A chart of bars from zero; groups: names on the x axis; series: list of `Bars`."""
    values = [value for one in series for value in one.values if drawable(value)]
    if not values:
        return empty_chart(title)
    ends = [end for one in series for bounds in one.intervals or () for end in bounds or ()]
    axis = Axis([*values, *ends, 0], HEIGHT - BOTTOM, TOP)
    room = (WIDTH - RIGHT - LEFT) / len(groups)
    width = 0.84 * room / len(series)
    middles = [LEFT + room * (n + 0.5) for n in range(len(groups))]
    drawing = draw_frame(x_label, y_label, axis, list(zip(middles, groups)))
    rows = []
    for n, one in enumerate(series):
        bounds = one.intervals or [None] * len(groups)
        for middle, value, interval in zip(middles, one.values, bounds):
            if drawable(value):
                left = middle + width * (n - len(series) / 2)
                drawing += draw_bar(axis, value, left, width, one.style)
                drawing += draw_interval(axis, interval, left + width / 2)
        rows.append([one.name, *map(with_interval, one.values, bounds)])
    numbers = html_table([x_label, *groups], rows, label=f'Numbers: {title}')
    legend = [(one.name, f'<rect class="bar c{one.style % COLOURS}" x="8" width="12" height="10"/>') for one in series]
    return titled_chart(title, drawing, legend, numbers)
