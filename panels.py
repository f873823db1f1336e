"""Panels: maps of one or two classes, found by number or name, over a photograph, with colour bars in the maps' own units.

K is one or two: the classes A and B of a panel.
"""

import difflib
import os
import re
import textwrap
import warnings
from collections import namedtuple
from contextlib import contextmanager
from functools import partial
from io import BytesIO

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torchvision import models

import util
from photographs import SIDE
from wsol import attribution, metrics
from wsol.errors import UserError

TILE, DPI = 2.7, 120  # longest side of a tile in inches; pixels an inch

UNITS = {'vanilla': 'class score f', 'jointll': 'p(y, z | x)', 'gtcond': 'p(z | x, y)', 'saliency': 'p(z | x)'}

Panel = namedtuple('Panel', 'title picture names rows')
Panel.__doc__ = """One picture: its title, the photograph uint8 [y, x, 3], a line of text for each of the K classes, and the rows."""
Row = namedtuple('Row', 'label unit maps')
Row.__doc__ = """One method of a panel: its label, the unit of its values, its maps float [K, h, w] as they are."""


def class_names(dataset, num_classes, roots):
    """The names of the classes, a list, from <root>/<dataset>/classes.txt ('1 001.Name' a line) or, for ILSVRC, torchvision's.

    None where there is no such list of `num_classes` names.
    """
    names = list(models.ResNet50_Weights.IMAGENET1K_V1.meta['categories']) if dataset == 'ILSVRC' else []
    for path in (os.path.join(root, dataset, 'classes.txt') for root in roots):
        if os.path.isfile(path):
            with open(path) as file:
                names = [line.split(maxsplit=1)[-1].strip() for line in file if line.strip()]
            break
    return names if len(names) == num_classes else None


def _plain(name):
    """A name as people type it: no number before it, lower case, spaces."""
    return re.sub(r'^\d+\.', '', name).replace('_', ' ').lower().strip()


def parse_classes(text, num_classes, names=None):
    """One or two classes of a text 'A' or 'A,B': each a number from 0, a name, or @r, the r-th most probable class.

    @r becomes -r. Unknown, ambiguous or too many names are a ValueError; an unknown one lists close ones.
    """
    words = [word.strip() for word in text.split(',')]
    if len(words) > 2 or not all(words):
        raise UserError(f'--classes {text!r}: give one class, or two as A,B')
    return [_class_number(word, num_classes, names) for word in words]


def _class_number(word, num_classes, names):
    if re.fullmatch(r'@?[0-9]+', word):
        number, low = int(word.lstrip('@')), 1 if word[0] == '@' else 0
        if not low <= number < num_classes + low:
            raise UserError(
                f'class {word} is out of range: there are {num_classes} classes, from '
                f'{"@1, the prediction" if low else 0}, to {"@" * low}{num_classes - 1 + low}'
            )
        return -number if low else number
    if names is None:
        raise UserError(
            f'class {word!r}: nothing names the classes here (no classes.txt of the data set): give a number'
        )
    found = [number for number, name in enumerate(names) if word == name] or [
        number for number, name in enumerate(names) if _plain(word) == _plain(name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f'class {word!r} is several: {", ".join(f"{n} ({names[n]})" for n in found)}: give the number')
    close = [names[number] for number in _closest(_plain(word), [_plain(name) for name in names])]
    hint = f'did you mean {" or ".join(close)}?' if close else f'the names are such as {", ".join(names[:3])}'
    raise UserError(f'unknown class {word!r}: {hint} Or give a number from 0 to {num_classes - 1}')


def _closest(word, names):
    """Numbers of up to five names close to `word`: those that contain it, then those spelt much like it."""
    like = difflib.get_close_matches(word, names, n=5)
    return [n for n, name in enumerate(names) if word in name][:5] or [names.index(name) for name in like]


def _fading(name, strength):
    """A colour map of 256 colours whose opacity is `strength`, 256 numbers in [0, 1]."""
    colours = colormaps[name](np.linspace(0, 1, 256))
    colours[:, 3] = strength
    return ListedColormap(colours)


RAMP = np.linspace(0, 1, 256)
ONE = _fading('inferno', 0.25 + 0.6 * RAMP**0.5)
BOTH = _fading('RdBu_r', 0.1 + 0.85 * np.abs(2 * RAMP - 1) ** 0.5)  # nothing to see at 0


def show_maps(axes, picture, maps):
    """Maps [K, h, w] on one scale, and of two classes A - B around zero, over the photograph in grey.

    axes: K of them, and one for the difference. Returns the drawn maps and the drawn difference (or None), for colour bars.
    """
    grey = np.asarray(picture, np.float64).mean(axis=2) / (255 if picture.dtype == np.uint8 else 1)
    extent = (-0.5, grey.shape[1] - 0.5, grey.shape[0] - 0.5, -0.5)
    low, high = min(0, float(maps.min())), float(maps.max())
    spans = [(ONE, low, high if high > low else low + 1, 1.4)] * len(
        maps
    )  # colours, their span, white of the photograph
    if len(maps) == 2:
        top = float(np.abs(maps[0] - maps[1]).max()) or 1
        spans, maps = [*spans, (BOTH, -top, top, 1.1)], [*maps, maps[0] - maps[1]]
    drawn = []
    for panel, one, (colours, low, high, white) in zip(axes, maps, spans):
        panel.imshow(grey, cmap='gray', vmin=-0.1, vmax=white)
        smooth = metrics.resize(np.asarray(one, np.float32)[None], SIDE)[0]
        drawn.append(panel.imshow(smooth, extent=extent, cmap=colours, vmin=low, vmax=high))
        panel.set_xticks([]), panel.set_yticks([])
        panel.set_anchor('W')
    return drawn[0], drawn[2] if len(drawn) == 3 else None


def unit_of(process, grid):
    """What a map's values are: a probability in each cell for CALM's readouts, else the map's own unit."""
    unit = UNITS.get(process, 'map value')
    return f'{unit}, each of {grid[0]} × {grid[1]} cells' if unit.startswith('p(') else unit


def make(title, picture, names, probs, classes, maps, attribution_method):
    """The `Panel` of one image: names of the C classes or None, probs [C], classes [K], maps {method: float [K, h, w]}."""
    called = [f'{names[number]} ({number})' if names else f'class {number}' for number in range(len(probs))]
    best, scalar = int(np.argmax(probs)), 'log p(y | x)' if attribution_method.startswith('CALM') else 'the logit'
    readouts = {*attribution.READOUTS, *attribution.SUPERCLASS_READOUTS}
    rows = [
        Row(name if name in readouts else f'{name} of {scalar}', unit_of(name, one.shape[1:]), one)
        for name, one in maps.items()
    ]
    return Panel(
        f'{title}\npredicted: {called[best]}, p = {probs[best]:.3f}',
        picture,
        [f'{called[y]}\np = {probs[y]:.3f}' for y in classes],
        rows,
    )


class _Layout:
    """Axes placed in inches: columns of one width, rows of one height, `head` inches of text on top, room for row labels and two colour bars."""

    def __init__(self, wide, high, rows, columns, head):
        self.wide, self.high, self.head = wide, high, head
        self.lefts, x = [], 0.42
        for column in range(columns):
            self.lefts.append(x)
            barred = column == columns - 1 or columns == 4 and column == 2
            x += self.wide + (0.95 if barred else 0.1)
        self.size = (x, head + rows * (self.high + 0.2))
        self.figure = Figure(figsize=self.size)

    def axes(self, row, column, bar=False):
        x = self.lefts[column] + (self.wide + 0.08 if bar else 0)
        y = self.size[1] - self.head - row * (self.high + 0.2) - self.high
        return self.figure.add_axes(
            (x / self.size[0], y / self.size[1], (0.13 if bar else self.wide) / self.size[0], self.high / self.size[1])
        )

    def text(self, x, y, text, **style):
        """Text x inches from the left, y from the top; a name with $ signs is no formula."""
        self.figure.text(x / self.size[0], 1 - y / self.size[1], text, parse_math=False, linespacing=1.25, **style)


def _wrapped(text, width):
    """The lines of a text, each broken into at most two of `width` letters; what is longer ends in an ellipsis."""
    return '\n'.join(
        part for line in text.split('\n') for part in textwrap.wrap(line, width, max_lines=2, placeholder='…') or ['']
    )


def draw(panel):
    """The matplotlib figure of a Panel: photograph, A, B, "why A and not B"; a row for each method."""
    both, sides = len(panel.names) == 2, np.array(panel.picture.shape[:2])
    high, wide = np.maximum(sides * TILE / sides.max(), (1.4, 2))  # room for the words of a narrow photograph
    titles = [
        'photograph',
        *(_wrapped(f'{letter}: {name}', int(wide * 14)) for letter, name in zip('AB', panel.names)),
        'why A and not B\nred: more A, blue: more B',
    ][: 2 + 2 * both]
    lines = max(title.count('\n') + 1 for title in titles)
    title = _wrapped(panel.title, int(wide * len(titles) * 11))
    top = 0.1 + 0.19 * (title.count('\n') + 1)
    layout = _Layout(wide, high, len(panel.rows), len(titles), head=top + 0.1 + 0.16 * lines)
    layout.text(0.42, 0.08, title, fontsize=9.5, va='top')
    for left, text in zip(layout.lefts, titles):
        layout.text(left, layout.head - 0.06, text, fontsize=8.5, va='bottom')
    for number, row in enumerate(panel.rows):
        axes = [layout.axes(number, column) for column in range(len(titles))]
        axes[0].imshow(panel.picture)
        axes[0].set_xticks([]), axes[0].set_yticks([])
        axes[0].set_anchor('W')
        axes[0].set_ylabel(row.label, fontsize=8.5)
        maps, difference = show_maps(axes[1:], panel.picture, row.maps)
        _bar(layout.axes(number, 1 + both, bar=True), maps, row.unit, '.4')
        if difference is not None:
            _bar(layout.axes(number, 3, bar=True), difference, f'A − B: {row.unit}', '.7')
    return layout.figure


def _bar(axes, drawn, label, behind):
    """A colour bar whose faint colours lie on the grey `behind`, as those of the map lie on the photograph."""
    scale = axes.figure.colorbar(drawn, cax=axes)
    scale.set_label(label, fontsize=7)
    scale.ax.tick_params(labelsize=7)
    scale.formatter.set_powerlimits((-3, 4))
    scale.ax.yaxis.get_offset_text().set_fontsize(7)
    axes.set_facecolor(behind)


def png(panel):
    """The bytes of the PNG of a Panel."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a file name in letters that the font lacks
        buffer = BytesIO()
        draw(panel).savefig(buffer, format='png', dpi=DPI, pil_kwargs={'compress_level': 3})
    return buffer.getvalue()


def write(job):
    """Write the PNG of (path, Panel); returns the path. What a drawing process is given."""
    path, panel = job
    data = png(panel)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    util.atomically(path, lambda file: file.write(data))
    return path


@contextmanager
def drawing(workers):
    """A function: stream of (path, Panel) -> stream of paths of the written pictures, in order, drawn by `workers` processes."""
    with util.in_processes(workers) as run:
        yield partial(run, write)
