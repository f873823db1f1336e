"""Draws one ToyBird: a side-view bird whose eight parts each show one of two looks, in front of a random scene.

`render_bird` is a pure function of (looks, generator, size). It takes the same random numbers whatever the looks are, so two calls
with equal generators and one look changed give two pictures that differ in that part alone.

Letters: H, W picture height and width in pixels; S = 2 the supersampling factor; n points of an outline. Bird coordinates: x forward
(towards the bill), y down, the torso about 1.2 long; `Pose.to_canvas` turns them into pixels of the supersampled canvas.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from toybirds_scene import colour_of, draw_scene

# part -> (name of the CUB attribute, its two values = the two looks); the order is the label id in the part masks, from 1
PART_LOOKS = {
    'bill': ('has_bill_shape', ('cone', 'dagger')),
    'crown': ('has_crown_color', ('red', 'yellow')),
    'wing': ('has_wing_pattern', ('solid', 'striped')),
    'back': ('has_back_color', ('green', 'purple')),
    'breast': ('has_breast_pattern', ('solid', 'spotted')),
    'belly': ('has_belly_color', ('orange', 'white')),
    'tail': ('has_tail_shape', ('forked_tail', 'fan-shaped_tail')),
    'leg': ('has_leg_color', ('red', 'blue')),
}
PARTS = tuple(PART_LOOKS)
LABELS = {part: label for label, part in enumerate(PARTS, start=1)}
FAR_LEG, PLAIN = 9, 10  # labels used while painting: the far leg, and bird pixels of no part
CUB_PARTS = (
    'back',
    'beak',
    'belly',
    'breast',
    'crown',
    'forehead',
    'left eye',
    'left leg',
    'left wing',
    'nape',
    'right eye',
    'right leg',
    'right wing',
    'tail',
    'throat',
)
LOOK_HSV = {  # hue in degrees, saturation, value; the body is muted, so that these stand out
    ('crown', 'red'): (358, 0.92, 0.90),
    ('crown', 'yellow'): (54, 0.95, 0.98),
    ('back', 'green'): (125, 0.80, 0.62),
    ('back', 'purple'): (285, 0.70, 0.72),
    ('belly', 'orange'): (27, 0.92, 0.97),
    ('belly', 'white'): (40, 0.03, 0.99),
    ('leg', 'red'): (358, 0.92, 0.88),
    ('leg', 'blue'): (216, 0.90, 0.92),
}
DISTRACTOR_HSV = (*LOOK_HSV.values(), (185, 0.60, 0.58), (31, 0.72, 0.85))  # the looks', the tail's and the bill's
S = 2

BODY = np.array(
    [
        (-0.62, 0.00),
        (-0.35, -0.18),
        (-0.02, -0.31),
        (0.24, -0.47),
        (0.32, -0.66),
        (0.50, -0.84),
        (0.72, -0.80),
        (0.84, -0.60),
        (0.78, -0.42),
        (0.65, -0.26),
        (0.65, 0.00),
        (0.52, 0.26),
        (0.22, 0.44),
        (-0.12, 0.45),
        (-0.42, 0.31),
        (-0.62, 0.14),
    ]
)  # [16, 2]
HEAD = slice(4, 9)  # the points of BODY that turn with the head
BACK = np.array(
    [(-0.75, 0.02), (-0.35, -0.40), (0.00, -0.55), (0.28, -0.58), (0.34, -0.34), (0.10, -0.06), (-0.30, 0.06)]
)
BREAST = np.array(
    [(0.34, -0.33), (0.55, -0.33), (0.95, -0.33), (0.95, 0.18), (0.60, 0.19), (0.20, 0.14), (0.20, -0.15)]
)
BELLY = np.array([(-0.46, 0.12), (0.00, 0.12), (0.36, 0.17), (0.75, 0.19), (0.80, 0.60), (0.10, 0.75), (-0.60, 0.60)])
CROWN = np.array(
    [(0.30, -0.60), (0.33, -0.80), (0.53, -0.96), (0.74, -0.89), (0.87, -0.68), (0.72, -0.69), (0.50, -0.64)]
)
WING = np.array(
    [(0.33, -0.07), (0.10, -0.14), (-0.30, -0.02), (-0.82, 0.20), (-0.40, 0.24), (-0.02, 0.27), (0.27, 0.16)]
)
BILLS = {
    'cone': np.array(
        [(0.72, -0.79), (0.95, -0.80), (1.12, -0.70), (1.22, -0.52), (1.02, -0.42), (0.74, -0.37), (0.64, -0.58)]
    ),
    'dagger': np.array([(0.76, -0.68), (1.00, -0.63), (1.54, -0.54), (1.00, -0.51), (0.76, -0.49), (0.70, -0.58)]),
}
TAILS = {
    'fan-shaped_tail': np.array(
        [
            (-0.46, -0.06),
            (-0.92, -0.45),
            (-1.08, -0.36),
            (-1.20, -0.18),
            (-1.26, 0.02),
            (-1.27, 0.20),
            (-1.22, 0.40),
            (-1.11, 0.57),
            (-0.96, 0.68),
            (-0.46, 0.19),
        ]
    ),
    'forked_tail': np.array(
        [
            (-0.46, -0.06),
            (-0.90, -0.25),
            (-1.30, -0.45),
            (-0.98, -0.13),
            (-0.60, 0.08),
            (-0.94, 0.34),
            (-1.24, 0.68),
            (-0.84, 0.42),
            (-0.46, 0.19),
        ]
    ),
}
RAYS = np.array(
    [
        (-0.58, 0.06),
        (-1.12, -0.25),
        (-0.58, 0.07),
        (-1.18, 0.00),
        (-0.58, 0.08),
        (-1.18, 0.25),
        (-0.58, 0.09),
        (-1.06, 0.49),
    ]
)  # fan feathers
LEGS = {
    'near': np.array([(0.12, 0.36), (0.08, 0.72), (0.28, 0.80), (0.08, 0.72), (-0.08, 0.80)]),
    'far': np.array([(-0.16, 0.36), (-0.22, 0.68), (-0.03, 0.76), (-0.22, 0.68), (-0.37, 0.76)]),
}
NECK, TAIL_BASE, EYE, FOREHEAD, NAPE, THROAT = (
    (0.48, -0.36),
    (-0.5, 0.07),
    (0.68, -0.60),
    (0.77, -0.66),
    (0.37, -0.54),
    (0.67, -0.38),
)


@dataclass
class Bird:
    """A picture and its ground truth. image [H, W, 3] uint8 RGB; labels [H, W] uint8, the part visible at a pixel (0 none);
    segmentation [H, W] uint8, 255 bird; part_locs [15, 3] float: x, y in pixels and visibility (0 or 1) in the order of CUB_PARTS."""

    image: np.ndarray
    labels: np.ndarray
    segmentation: np.ndarray
    part_locs: np.ndarray


def smooth(points, per_segment=6):
    """Closed Catmull-Rom curve through points [k, 2] -> [k * per_segment, 2]."""
    before, here, after, last = (np.roll(points, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))  # [k, 1, 2]
    t = np.arange(per_segment)[None, :, None] / per_segment  # [1, per_segment, 1]
    curve = (
        2 * here
        + (after - before) * t
        + (2 * before - 5 * here + 4 * after - last) * t**2
        + (3 * here - before - 3 * after + last) * t**3
    )
    return (curve / 2).reshape(-1, 2)


def rotate(points, degrees, centre):
    """Points [n, 2] turned about centre (x, y)."""
    angle = np.deg2rad(degrees)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    return (points - np.array(centre)) @ turn.T + np.array(centre)


def draw_shapes(rng):
    """Outlines in bird coordinates, mildly jittered and articulated; every look's shape is made. Returns {name: [n, 2]}."""
    head, tail, near, far = rng.uniform(-1, 1, 4) * (9, 11, 9, 9)
    stretch = rng.uniform(0.94, 1.06, 2)
    body = BODY + rng.uniform(-0.018, 0.018, BODY.shape)
    body[HEAD] = rotate(body[HEAD], head, NECK)
    shapes = {'body': smooth(body), 'back': smooth(BACK), 'breast': smooth(BREAST), 'belly': smooth(BELLY)}
    shapes['wing'] = smooth(WING + rng.uniform(-0.015, 0.015, WING.shape))
    shapes['crown'] = rotate(smooth(CROWN), head, NECK)
    for name, points in BILLS.items():
        shapes[name] = rotate(points, head, NECK)
    for name, points in TAILS.items():
        shapes[name] = rotate(points, tail, TAIL_BASE)
    shapes['rays'] = rotate(RAYS, tail, TAIL_BASE).reshape(-1, 2, 2)  # [rays, ends, 2]
    shapes['near'] = rotate(LEGS['near'], near, LEGS['near'][0])
    shapes['far'] = rotate(LEGS['far'], far, LEGS['far'][0])
    shapes['head points'] = rotate(np.array([EYE, FOREHEAD, NAPE, THROAT]), head, NECK)
    along = np.arange(0.13, -0.7, -0.2) + rng.uniform(-0.04, 0.04)  # the wing bars, from the shoulder to the tip
    shapes['bars'] = np.stack(
        [
            np.stack([along + dx, np.full(len(along), y)], -1)
            for dx, y in ((0.05, -0.3), (0.15, -0.3), (0.03, 0.5), (-0.07, 0.5))
        ],
        1,
    )  # [bars, 4, 2]
    grid = np.stack(np.meshgrid(np.arange(0.25, 0.8, 0.145), np.arange(-0.30, 0.25, 0.125)), -1)  # [rows, columns, 2]
    grid[1::2, :, 0] += 0.07
    shapes['spots'] = grid.reshape(-1, 2) + rng.uniform(-0.012, 0.012, (grid.size // 2, 2))
    return {name: points * stretch for name, points in shapes.items()}


class Pose:
    """Flip, rotation, scale and position of a bird; drawn from the shapes of all looks, so that it says nothing of the class."""

    def __init__(self, rng, shapes, height, width):
        self.flipped = bool(rng.integers(2))
        angle, share = rng.uniform(-20, 20), rng.uniform(0.80, 0.93)
        turn = rotate(np.eye(2), angle, (0, 0)).T  # [2, 2], its columns the turned axes
        self.matrix = turn @ np.diag((-1.0 if self.flipped else 1.0, 1.0))
        outline = (
            np.concatenate([shapes[name] for name in ('body', 'crown', 'near', 'far', *BILLS, *TAILS)]) @ self.matrix.T
        )
        low, high = outline.min(0), outline.max(0)
        frame = np.array((width, height))
        self.scale = S * share * (frame / (high - low)).min()
        room = S * frame - self.scale * (high - low)
        self.shift = room * rng.uniform(0.15, 0.85, 2) - self.scale * low

    def to_canvas(self, points):
        """Bird coordinates [..., 2] -> canvas pixels [..., 2]."""
        return points @ self.matrix.T * self.scale + self.shift


class Painter:
    """A canvas of palette codes: one paint order for colours and part labels, so that the masks are what is seen."""

    def __init__(self, height, width):
        self.index = np.zeros((S * height, S * width), np.uint8)
        self.colours, self.labels = [np.zeros(3)], [0]

    def code(self, colour, label):
        self.colours.append(colour)
        self.labels.append(label)
        return len(self.labels) - 1

    def look_up(self, values):
        """A value of each palette code (rounded and clipped to uint8) at every pixel of the canvas, [S H, S W] uint8."""
        table = np.zeros(256, np.uint8)
        table[: len(values)] = np.clip(np.round(values), 0, 255)
        return cv2.LUT(self.index, table)

    def fill(self, points, colour, label, clip=None, outline=S):
        """Paint a polygon [n, 2] with a darker outline where `clip` (bool canvas or None) allows; returns the painted area, bool."""
        corners = [np.round(points).astype(np.int32)]
        codes = self.code(colour, label), self.code(colour * 0.5, label)
        layer = cv2.fillPoly(np.zeros_like(self.index), corners, codes[0])
        if outline:
            cv2.polylines(layer, corners, True, codes[1], outline)
        area = layer > 0 if clip is None else (layer > 0) & clip
        np.copyto(self.index, layer, where=area)
        return area

    def stroke(self, path, thickness, colour, label):
        """Paint a thick line through path [n, 2] with a darker outline."""
        corners = [np.round(path).astype(np.int32)]
        cv2.polylines(self.index, corners, False, self.code(colour * 0.5, label), round(thickness) + 2 * S)
        cv2.polylines(self.index, corners, False, self.code(colour, label), round(thickness))

    def lines(self, ends, thickness, colour, label):
        """Paint straight lines, ends [k, 2, 2], without an outline."""
        cv2.polylines(self.index, np.round(ends).astype(np.int32), False, self.code(colour, label), round(thickness))

    def discs(self, centres, radius, colour, label, clip=None):
        """Paint discs, centres [k, 2], where `clip` allows."""
        layer = np.zeros_like(self.index)
        for centre in np.round(centres).astype(int).tolist():
            cv2.circle(layer, centre, max(round(radius), 1), 1, -1)
        np.copyto(self.index, self.code(colour, label), where=layer > 0 if clip is None else (layer > 0) & clip)


def draw_colours(rng, looks):
    """RGB of everything on the bird; a part whose look is a colour takes it, with jitter. Returns {name: [3]}.

    Bill and tail keep to one strong hue each, so that their shapes can be told at small sizes.
    """
    hue = rng.uniform(0, 360)
    colours = {
        'body': colour_of(hue, rng.uniform(0.12, 0.32), rng.uniform(0.50, 0.75)),
        'wing': colour_of(hue + rng.uniform(-40, 40), rng.uniform(0.15, 0.40), rng.uniform(0.25, 0.38)),
        'tail': colour_of(rng.uniform(172, 198), rng.uniform(0.45, 0.75), rng.uniform(0.45, 0.70)),
        'bill': colour_of(rng.uniform(22, 40), rng.uniform(0.55, 0.90), rng.uniform(0.75, 0.95)),
        'breast': colour_of(hue + rng.uniform(-40, 40), rng.uniform(0.05, 0.18), rng.uniform(0.80, 0.95)),
    }
    for part in ('crown', 'back', 'belly', 'leg'):
        base, jitter = LOOK_HSV[part, looks[part]], rng.uniform(-1, 1, 3) * (5, 0.04, 0.05)
        colours[part] = colour_of(*(base + jitter))
    return colours


def paint_bird(painter, pose, shapes, looks, colours):
    """Paint all parts from far to near; returns the area of the torso and head, bool canvas."""
    place = {name: pose.to_canvas(points) for name, points in shapes.items()}
    dark, pale = np.full(3, 28.0), np.full(3, 245.0)
    painter.stroke(place['far'], 0.085 * pose.scale, colours['leg'] * 0.85, FAR_LEG)
    painter.stroke(place['near'], 0.095 * pose.scale, colours['leg'], LABELS['leg'])
    painter.fill(place[looks['tail']], colours['tail'], LABELS['tail'])
    if looks['tail'] == 'fan-shaped_tail':
        painter.lines(place['rays'], 0.04 * pose.scale, colours['tail'] * 0.35, LABELS['tail'])
    torso = painter.fill(place['body'], colours['body'], PLAIN)
    inside = painter.index == painter.labels.index(PLAIN)  # the torso without its outline
    painter.fill(place['belly'], colours['belly'], LABELS['belly'], inside)
    breast = painter.fill(place['breast'], colours['breast'], LABELS['breast'], inside)
    if looks['breast'] == 'spotted':
        painter.discs(place['spots'], 0.05 * pose.scale, dark, LABELS['breast'], breast)
    painter.fill(place['back'], colours['back'], LABELS['back'], inside)
    painter.fill(place['crown'], colours['crown'], LABELS['crown'])
    painter.fill(place[looks['bill']], colours['bill'], LABELS['bill'])
    wing = painter.fill(place['wing'], colours['wing'], LABELS['wing'])
    if looks['wing'] == 'striped':
        for bar in place['bars']:
            painter.fill(bar, pale, LABELS['wing'], wing, outline=0)
    eye = place['head points'][:1]  # [1, 2]
    painter.discs(eye, 0.068 * pose.scale, pale, PLAIN)
    painter.discs(eye, 0.050 * pose.scale, np.zeros(3), PLAIN)
    painter.discs(eye - 0.018 * pose.scale, 0.016 * pose.scale, pale, PLAIN)
    return torso


def light_field(rng, torso, height, width):
    """Brightness factor [H, W, 1] float32: a directed gradient and a soft round body. torso: bool canvas."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.18)
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    small = cv2.resize(torso.astype(np.float32), (width // 8, height // 8), interpolation=cv2.INTER_AREA)
    around = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.6), (width, height), interpolation=cv2.INTER_LINEAR)
    round_body = cv2.warpAffine(
        around, np.float32([(1, 0, 6 * np.cos(angle)), (0, 1, 6 * np.sin(angle))]), (width, height)
    )
    directed = 1 + strength * (x * np.cos(angle) + y * np.sin(angle))
    return (directed * (0.80 + 0.22 * (1 - around + round_body).clip(0.4, 1.15)))[..., None].astype(np.float32)


def locate_parts(pose, head_points, labels):
    """CUB's fifteen part points [15, 3]: painted parts by their visible pixels, head points by geometry. labels [H, W], FAR_LEG kept."""
    side, other = (
        ('left', 'right') if pose.flipped else ('right', 'left')
    )  # flipped: it faces left and shows its left side
    eye, forehead, nape, throat = pose.to_canvas(head_points) / S
    points = {f'{side} eye': eye, 'forehead': forehead, 'nape': nape, 'throat': throat}
    names = {
        'back': 'back',
        'beak': 'bill',
        'belly': 'belly',
        'breast': 'breast',
        'crown': 'crown',
        'tail': 'tail',
        f'{side} wing': 'wing',
        f'{side} leg': 'leg',
    }
    for name, label in [(name, LABELS[part]) for name, part in names.items()] + [(f'{other} leg', FAR_LEG)]:
        area = (labels == label).astype(np.uint8)
        if (
            area.any()
        ):  # a point well inside the area and near its middle: the middle itself may lie outside (a forked tail)
            left, top, wide, high = cv2.boundingRect(area)
            depth = cv2.distanceTransform(np.pad(area[top : top + high, left : left + wide], 1), cv2.DIST_L2, 3)
            y, x = np.nonzero(depth)
            best = np.argmax(depth[y, x] - 0.25 * np.hypot(x - x.mean(), y - y.mean()))
            points[name] = (x[best] + left - 1, y[best] + top - 1)
    return np.array([(*points[name], 1.0) if name in points else (0.0, 0.0, 0.0) for name in CUB_PARTS])


def render_bird(looks, rng, size):
    """Draw one bird.

    looks: {part: look} for all of PARTS, values from PART_LOOKS; rng: numpy Generator; size: the picture's shorter side in pixels (the
    other is up to an eighth longer). Returns a Bird. Raises KeyError for an unknown look.
    """
    sides = size, size + int(rng.integers(size // 8 + 1))
    height, width = sides if rng.integers(2) else sides[::-1]
    shapes = draw_shapes(rng)
    outlines = [shapes[name] for name in ('crown', 'wing', 'breast', 'back', *BILLS, *TAILS)]
    picture = draw_scene(rng, height, width, outlines, [colour_of(*hsv) for hsv in DISTRACTOR_HSV])  # [H, W, 3] float32
    pose, painter = Pose(rng, shapes, height, width), Painter(height, width)
    torso = paint_bird(painter, pose, shapes, looks, draw_colours(rng, looks))
    layer = cv2.merge(
        [painter.look_up(channel) for channel in np.array(painter.colours).T]
    )  # [S H, S W, 3], 0 off the bird
    share = cv2.resize((painter.index > 0).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)  # [H, W]
    bird = cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA) * light_field(rng, torso, height, width)
    gain, offset, grain = (
        np.float32(rng.uniform(0.85, 1.12)),
        np.float32(rng.uniform(-12, 12)),
        np.float32(rng.uniform(0, 5)),
    )
    picture = (picture * (1 - share[..., None]) + bird - 128) * gain + (128 + offset)
    picture += rng.integers(-1, 2, picture.shape, dtype=np.int8) * grain
    image = picture.clip(0, 255).astype(np.uint8)
    labels = np.ascontiguousarray(painter.look_up(painter.labels)[::S, ::S])  # [H, W]
    part_locs = locate_parts(pose, shapes['head points'], labels)
    shown = np.array([*range(FAR_LEG), LABELS['leg'], 0], np.uint8)  # label while painting -> label in the file
    return Bird(image, shown[labels], np.ceil(255 * share).astype(np.uint8), part_locs)
