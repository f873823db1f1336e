"""Panels: maps of one or two classes over a photograph, with colour bars in the maps' units.

K: the number of classes, one (A) or two (A and B).
"""

import os
import textwrap
import warnings
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

import util
from data.photographs import SIDE
from engine import pool
from wsol import attribution
from wsol.network import HEADS
from wsol.scoring.maps import resize

TILE = 2.7  # longest side of a tile in inches
DPI = 120  # pixels an inch


class Row(NamedTuple):
    """One map of a panel, for each of the K classes."""

    label: str  # its name and what it explains
    unit: str  # of its values
    maps: np.ndarray  # float [K, h, w], unscaled


class Panel(NamedTuple):
    """A picture: a photograph and a row for each map."""

    title: str
    picture: np.ndarray  # the photograph, uint8 or float in [0, 1], [y, x, 3]
    names: list  # a text for each of the K classes
    rows: list  # of Row


def _fading(name, strength):
    """A colour map with opacity `strength`, 256 numbers in [0, 1]."""
    colours = colormaps[name](np.linspace(0, 1, 256))
    colours[:, 3] = strength
    return ListedColormap(colours)


RAMP = np.linspace(0, 1, 256)
ONE = _fading('inferno', 0.25 + 0.6 * RAMP**0.5)
BOTH = _fading('RdBu_r', 0.1 + 0.85 * np.abs(2 * RAMP - 1) ** 0.5)  # transparent at 0


def hide_ticks(axes):
    axes.set_xticks([])
    axes.set_yticks([])


def show_maps(axes, picture, maps):
    """Draw maps [K, h, w] on a common scale, and A - B of two on a symmetric one, over the grey photograph.

    axes: for the K maps, and for the difference. Returns the images of the first map and of the difference (or None),
    for colour bars.
    """
    grey = np.asarray(picture, np.float64).mean(axis=2) / (255 if picture.dtype == np.uint8 else 1)
    extent = (-0.5, grey.shape[1] - 0.5, grey.shape[0] - 0.5, -0.5)

    def show(tile, one, colours, low, high, white):
        """Draw a map over the grey photograph; white: the grey value shown as white."""
        tile.imshow(grey, cmap='gray', vmin=-0.1, vmax=white)
        smooth = resize(np.asarray(one, np.float32)[None], SIDE)[0]
        hide_ticks(tile)
        tile.set_anchor('W')
        return tile.imshow(smooth, extent=extent, cmap=colours, vmin=low, vmax=high)

    low = min(0, float(maps.min()))
    high = float(maps.max())
    shown = [show(tile, one, ONE, low, high if high > low else low + 1, white=1.4) for tile, one in zip(axes, maps)]
    if len(maps) == 1:
        return shown[0], None
    difference = maps[0] - maps[1]
    top = float(np.abs(difference).max()) or 1
    return shown[0], show(axes[2], difference, BOTH, -top, top, white=1.1)


def _spaced(text):
    """The text with p(y|x) spaced."""
    return text.replace('p(y|x)', 'p(y | x)')


def _row(map_name, head_name, maps):
    """The `Row` of a map for a network with this head; the unit of a probability names the cells."""
    unit = _spaced(attribution.unit_of(map_name, head_name))
    if unit.startswith('p('):
        unit = f'{unit}, each of {maps.shape[1]} × {maps.shape[2]} cells'
    if attribution.MAPS[map_name].kind == 'readout':
        return Row(map_name, unit, maps)
    return Row(f'{map_name} of {_spaced(HEADS[head_name].scalar)}', unit, maps)


def make_panel(title, picture, names, probs, classes, maps, head_name):
    """The `Panel` of one image.

    names: of the C classes, or None; probs: C floats; classes: the K explained classes; maps: {map name: float
    [K, h, w]}; head_name: of wsol.network.HEADS.
    """
    called = [f'{names[y]} ({y})' if names else f'class {y}' for y in range(len(probs))]
    best = int(np.argmax(probs))
    return Panel(
        f'{title}\npredicted: {called[best]}, p = {probs[best]:.3f}',
        picture,
        [f'{called[y]}\np = {probs[y]:.3f}' for y in classes],
        [_row(map_name, head_name, one) for map_name, one in maps.items()],
    )


class _Layout:
    """A grid of equal axes, in inches, below `head` inches of text, with room for row labels and colour bars."""

    def __init__(self, wide, high, rows, columns, head):
        self.wide = wide
        self.high = high
        self.head = head
        self.lefts = []
        x = 0.42
        for column in range(columns):
            self.lefts.append(x)
            barred = column == columns - 1 or columns == 4 and column == 2
            x += self.wide + (0.95 if barred else 0.1)
        self.size = (x, head + rows * (self.high + 0.2))
        self.figure = Figure(figsize=self.size)

    def axes(self, row, column, bar=False):
        """The axes of a tile, or of the colour bar to its right."""
        x = self.lefts[column] + (self.wide + 0.08 if bar else 0)
        y = self.size[1] - self.head - row * (self.high + 0.2) - self.high
        width = 0.13 if bar else self.wide
        return self.figure.add_axes(
            (x / self.size[0], y / self.size[1], width / self.size[0], self.high / self.size[1])
        )

    def text(self, x, y, text, **style):
        """Draw text x inches from the left and y from the top; $ is literal, and invalid UTF-8 is replaced."""
        text = text.encode(errors='replace').decode()
        self.figure.text(x / self.size[0], 1 - y / self.size[1], text, parse_math=False, linespacing=1.25, **style)


def _wrapped(text, width):
    """The text with each line wrapped to at most two lines of `width` letters, ending in an ellipsis if cut."""
    return '\n'.join(
        piece for line in text.split('\n') for piece in textwrap.wrap(line, width, max_lines=2, placeholder='…') or ['']
    )


def _titled_layout(panel):
    """(`_Layout` of a panel with its titles, number of columns)."""
    sides = np.array(panel.picture.shape[:2])
    high, wide = np.maximum(sides * TILE / sides.max(), (1.4, 2))  # minimum size for the texts
    titles = ['photograph']
    titles += [_wrapped(f'{letter}: {name}', int(wide * 14)) for letter, name in zip('AB', panel.names)]
    if len(panel.names) == 2:
        titles.append('why A and not B\nred: more A, blue: more B')
    lines = max(title.count('\n') + 1 for title in titles)
    title = _wrapped(panel.title, int(wide * len(titles) * 11))
    top = 0.1 + 0.19 * (title.count('\n') + 1)
    layout = _Layout(wide, high, len(panel.rows), len(titles), head=top + 0.1 + 0.16 * lines)
    layout.text(0.42, 0.08, title, fontsize=9.5, va='top')
    for left, text in zip(layout.lefts, titles):
        layout.text(left, layout.head - 0.06, text, fontsize=8.5, va='bottom')
    return layout, len(titles)


def draw_panel(panel):
    """The matplotlib figure of a `Panel`: photograph, A, B, "why A and not B"; a row for each map."""
    layout, columns = _titled_layout(panel)
    for number, row in enumerate(panel.rows):
        axes = [layout.axes(number, column) for column in range(columns)]
        axes[0].imshow(panel.picture)
        hide_ticks(axes[0])
        axes[0].set_anchor('W')
        axes[0].set_ylabel(row.label, fontsize=8.5)
        shown, difference = show_maps(axes[1:], panel.picture, row.maps)
        _draw_colour_bar(layout.axes(number, len(panel.names), bar=True), shown, row.unit, '.4')
        if difference is not None:
            _draw_colour_bar(layout.axes(number, 3, bar=True), difference, f'A − B: {row.unit}', '.7')
    return layout.figure


def _draw_colour_bar(axes, shown, label, behind):
    """Draw a colour bar on the grey `behind`, as transparent map colours lie on the photograph."""
    scale = axes.figure.colorbar(shown, cax=axes)
    scale.set_label(label, fontsize=7)
    scale.ax.tick_params(labelsize=7)
    scale.formatter.set_powerlimits((-3, 4))
    scale.ax.yaxis.get_offset_text().set_fontsize(7)
    axes.set_facecolor(behind)


def panel_png(panel):
    """A `Panel` as PNG bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of letters missing in the font
        buffer = BytesIO()
        draw_panel(panel).savefig(buffer, format='png', dpi=DPI, pil_kwargs={'compress_level': 3})
    return buffer.getvalue()


def write_panel(job):
    """Write the PNG of (path, Panel); returns the path. A job of a worker process."""
    path, panel = job
    png = panel_png(panel)
    util.make_folder(os.path.dirname(path))
    util.atomically(path, lambda file: file.write(png))
    return path


@contextmanager
def panel_writer(workers):
    """A context with a function (path, Panel) iterator -> iterator of written paths; `workers` processes draw."""
    with pool.in_processes(workers) as run:
        yield partial(run, write_panel)
