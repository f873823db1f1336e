"""Paints a ToyBird on a canvas from back to front, colours and part labels together.

H, W: the picture's height and width; the canvas is S times as large. Outlines [n, 2] are in canvas pixels.
"""

import cv2
import numpy as np

from .classes import LABELS, PARTS
from .scene import colour_of
from .shapes import S, outline_of

FAR_LEG = 9  # temporary label of the far leg
PLAIN = 10  # temporary label of bird pixels without a part
LOOK_HSV = {  # hue in degrees, saturation, value; more vivid than the body
    ('crown', 'red'): (358, 0.92, 0.90),
    ('crown', 'yellow'): (54, 0.95, 0.98),
    ('back', 'green'): (125, 0.80, 0.62),
    ('back', 'purple'): (285, 0.70, 0.72),
    ('belly', 'orange'): (27, 0.92, 0.97),
    ('belly', 'white'): (40, 0.03, 0.99),
    ('leg', 'red'): (358, 0.92, 0.88),
    ('leg', 'blue'): (216, 0.90, 0.92),
    ('bill', 'orange'): (31, 0.80, 0.92),
    ('bill', 'red'): (358, 0.92, 0.90),
    ('bill', 'blue'): (216, 0.90, 0.92),
    ('bill', 'black'): (0, 0.05, 0.14),
    ('crown', 'black'): (0, 0.05, 0.14),
    ('crown', 'blue'): (216, 0.90, 0.92),
    ('back', 'black'): (0, 0.05, 0.14),
    ('back', 'yellow'): (54, 0.95, 0.98),
    ('belly', 'blue'): (216, 0.85, 0.92),
    ('belly', 'green'): (125, 0.80, 0.62),
    ('leg', 'black'): (0, 0.05, 0.14),
    ('leg', 'yellow'): (54, 0.95, 0.98),
}
DARK = np.full(3, 28.0)
PALE = np.full(3, 245.0)


class Painter:
    """A canvas of palette codes: colours and part labels share one paint order, so masks show the visible parts."""

    def __init__(self, height, width):
        self.index = np.zeros((S * height, S * width), np.uint8)
        self.colours = [np.zeros(3)]
        self.labels = [0]

    def code(self, colour, label):
        """Add a palette entry and return its code."""
        self.colours.append(colour)
        self.labels.append(label)
        return len(self.labels) - 1

    def look_up(self, values):
        """Map palette codes to values, rounded and clipped to uint8, at every canvas pixel [S H, S W]."""
        table = np.zeros(256, np.uint8)
        table[: len(values)] = np.clip(np.round(values), 0, 255)
        return cv2.LUT(self.index, table)

    def fill(self, points, colour, label, clip=None, outline=S):
        """Paint a polygon [n, 2] with a darker outline inside `clip` (bool canvas or None).

        Returns the painted area, a bool canvas.
        """
        corners = [np.round(points).astype(np.int32)]
        inner = self.code(colour, label)
        edge = self.code(colour * 0.5, label)
        layer = cv2.fillPoly(np.zeros_like(self.index), corners, inner)
        if outline:
            cv2.polylines(layer, corners, True, edge, outline)
        area = layer > 0 if clip is None else (layer > 0) & clip
        np.copyto(self.index, layer, where=area)
        return area

    def stroke(self, path, thickness, colour, label):
        """Paint a thick line along path [n, 2] with a darker outline."""
        corners = [np.round(path).astype(np.int32)]
        cv2.polylines(self.index, corners, False, self.code(colour * 0.5, label), round(thickness) + 2 * S)
        cv2.polylines(self.index, corners, False, self.code(colour, label), round(thickness))

    def lines(self, ends, thickness, colour, label):
        """Paint straight lines, ends [k, 2, 2], without outline."""
        cv2.polylines(self.index, np.round(ends).astype(np.int32), False, self.code(colour, label), round(thickness))

    def discs(self, centres, radius, colour, label, clip=None):
        """Paint discs, centres [k, 2], inside `clip`."""
        layer = np.zeros_like(self.index)
        for centre in np.round(centres).astype(int).tolist():
            cv2.circle(layer, centre, max(round(radius), 1), 1, -1)
        np.copyto(self.index, self.code(colour, label), where=layer > 0 if clip is None else (layer > 0) & clip)


def draw_colours(rng, looks):
    """Draw RGB colours for the bird; a part whose look is a colour gets it, with jitter. Returns {name: [3]}.

    Bills and tails that differ in shape keep to one vivid hue each, to be recognisable at small sizes.
    """
    hue = rng.uniform(0, 360)
    colours = {
        'body': colour_of(hue, rng.uniform(0.12, 0.32), rng.uniform(0.50, 0.75)),
        'wing': colour_of(hue + rng.uniform(-40, 40), rng.uniform(0.15, 0.40), rng.uniform(0.25, 0.38)),
        'tail': colour_of(rng.uniform(172, 198), rng.uniform(0.45, 0.75), rng.uniform(0.45, 0.70)),
        'bill': colour_of(rng.uniform(22, 40), rng.uniform(0.55, 0.90), rng.uniform(0.75, 0.95)),
        'breast': colour_of(hue + rng.uniform(-40, 40), rng.uniform(0.05, 0.18), rng.uniform(0.80, 0.95)),
    }
    for part in [part for part in PARTS if (part, looks[part]) in LOOK_HSV]:
        jitter = rng.uniform(-1, 1, 3) * (5, 0.04, 0.05)
        colours[part] = colour_of(*(LOOK_HSV[part, looks[part]] + jitter))
    return colours


def paint_pattern(painter, place, part, look, ink, scale, area):
    """Paint a part's pattern `look`, if it is one, in colour `ink` inside `area` (bool canvas)."""
    marks = place.get(f'{part} {look}', ())
    if look == 'spotted':
        painter.discs(marks, 0.05 * scale, ink, LABELS[part], area)
    else:
        for piece in marks:
            painter.fill(piece, ink, LABELS[part], area, outline=0)


def paint_bird(painter, pose, shapes, looks, colours):
    """Paint all parts from back to front; returns the area of torso and head, a bool canvas."""
    place = {name: pose.to_canvas(points) for name, points in shapes.items()}
    painter.stroke(place['far'], 0.085 * pose.scale, colours['leg'] * 0.85, FAR_LEG)
    painter.stroke(place['near'], 0.095 * pose.scale, colours['leg'], LABELS['leg'])
    tail = painter.fill(place[outline_of('tail', looks['tail'])], colours['tail'], LABELS['tail'])
    if looks['tail'] == 'fan-shaped_tail':
        painter.lines(place['rays'], 0.04 * pose.scale, colours['tail'] * 0.35, LABELS['tail'])
    paint_pattern(painter, place, 'tail', looks['tail'], PALE, pose.scale, tail)
    torso = painter.fill(place['body'], colours['body'], PLAIN)
    inside = painter.index == painter.labels.index(PLAIN)  # the torso without its outline
    painter.fill(place['belly'], colours['belly'], LABELS['belly'], inside)
    breast = painter.fill(place['breast'], colours['breast'], LABELS['breast'], inside)
    paint_pattern(painter, place, 'breast', looks['breast'], DARK, pose.scale, breast)
    painter.fill(place['back'], colours['back'], LABELS['back'], inside)
    painter.fill(place['crown'], colours['crown'], LABELS['crown'])
    painter.fill(place[outline_of('bill', looks['bill'])], colours['bill'], LABELS['bill'])
    wing = painter.fill(place['wing'], colours['wing'], LABELS['wing'])
    paint_pattern(painter, place, 'wing', looks['wing'], PALE, pose.scale, wing)
    paint_eye(painter, place['head points'][:1], pose.scale)
    return torso


def paint_eye(painter, centre, scale):
    """Paint a pale ring, a black eye and its glint; centre [1, 2]."""
    painter.discs(centre, 0.068 * scale, PALE, PLAIN)
    painter.discs(centre, 0.050 * scale, np.zeros(3), PLAIN)
    painter.discs(centre - 0.018 * scale, 0.016 * scale, PALE, PLAIN)
