"""Outlines of a ToyBird with mild jitter, and the pose that maps them into the picture.

Bird coordinates: x forward (towards the bill), y down, torso length about 1.2. n: points of an outline.
"""

from typing import NamedTuple

import numpy as np

S = 2  # supersampling factor: canvas size / picture size

# fmt: off
BODY = np.array([
    (-0.62, 0.00), (-0.35, -0.18), (-0.02, -0.31), (0.24, -0.47), (0.32, -0.66), (0.50, -0.84), (0.72, -0.80),
    (0.84, -0.60), (0.78, -0.42), (0.65, -0.26), (0.65, 0.00), (0.52, 0.26), (0.22, 0.44), (-0.12, 0.45),
    (-0.42, 0.31), (-0.62, 0.14),
])  # [16, 2]
HEAD = slice(4, 9)  # points of BODY that rotate with the head
BACK = np.array([
    (-0.75, 0.02), (-0.35, -0.40), (0.00, -0.55), (0.28, -0.58), (0.34, -0.34), (0.10, -0.06), (-0.30, 0.06),
])
BREAST = np.array([
    (0.34, -0.33), (0.55, -0.33), (0.95, -0.33), (0.95, 0.18), (0.60, 0.19), (0.20, 0.14), (0.20, -0.15),
])
BELLY = np.array([
    (-0.46, 0.12), (0.00, 0.12), (0.36, 0.17), (0.75, 0.19), (0.80, 0.60), (0.10, 0.75), (-0.60, 0.60),
])
CROWN = np.array([
    (0.30, -0.60), (0.33, -0.80), (0.53, -0.96), (0.74, -0.89), (0.87, -0.68), (0.72, -0.69), (0.50, -0.64),
])
WING = np.array([
    (0.33, -0.07), (0.10, -0.14), (-0.30, -0.02), (-0.82, 0.20), (-0.40, 0.24), (-0.02, 0.27), (0.27, 0.16),
])
BILLS = {
    'cone': np.array([
        (0.72, -0.79), (0.95, -0.80), (1.12, -0.70), (1.22, -0.52), (1.02, -0.42), (0.74, -0.37), (0.64, -0.58),
    ]),
    'dagger': np.array([
        (0.76, -0.68), (1.00, -0.63), (1.54, -0.54), (1.00, -0.51), (0.76, -0.49), (0.70, -0.58),
    ]),
}
TAILS = {
    'fan-shaped_tail': np.array([
        (-0.46, -0.06), (-0.92, -0.45), (-1.08, -0.36), (-1.20, -0.18), (-1.26, 0.02),
        (-1.27, 0.20), (-1.22, 0.40), (-1.11, 0.57), (-0.96, 0.68), (-0.46, 0.19),
    ]),
    'forked_tail': np.array([
        (-0.46, -0.06), (-0.90, -0.25), (-1.30, -0.45), (-0.98, -0.13), (-0.60, 0.08),
        (-0.94, 0.34), (-1.24, 0.68), (-0.84, 0.42), (-0.46, 0.19),
    ]),
}
RAYS = np.array([  # feathers of the fan: pairs of end points
    (-0.58, 0.06), (-1.12, -0.25), (-0.58, 0.07), (-1.18, 0.00),
    (-0.58, 0.08), (-1.18, 0.25), (-0.58, 0.09), (-1.06, 0.49),
])
LEGS = {
    'near': np.array([(0.12, 0.36), (0.08, 0.72), (0.28, 0.80), (0.08, 0.72), (-0.08, 0.80)]),
    'far': np.array([(-0.16, 0.36), (-0.22, 0.68), (-0.03, 0.76), (-0.22, 0.68), (-0.37, 0.76)]),
}
SHOULDER = np.array([[(-0.14, -0.40), (0.60, -0.40), (0.60, 0.60), (-0.26, 0.60)]])  # two-coloured wing
CHEST = np.array([[(0.00, -0.14), (1.00, -0.14), (1.00, 0.40), (0.00, 0.40)]])  # lower half of a two-coloured breast
BREAST_BARS = np.array([
    [(0.00, y), (1.00, y - 0.06), (1.00, y + 0.01), (0.00, y + 0.07)] for y in (-0.27, -0.11, 0.05)
])  # [bars, 4, 2]
TAIL_BARS = np.array([
    [(x, -0.60), (x - 0.09, -0.60), (x - 0.09, 0.80), (x, 0.80)] for x in (-0.66, -0.84, -1.02, -1.20)
])  # [bars, 4, 2]
TAIL_SPOTS = np.array([
    (-0.78, -0.16), (-0.78, 0.02), (-0.78, 0.20), (-0.78, 0.38), (-0.95, -0.25), (-0.95, -0.07), (-0.95, 0.11),
    (-0.95, 0.29), (-0.95, 0.47), (-1.12, -0.16), (-1.12, 0.02), (-1.12, 0.20), (-1.12, 0.38),
])
TAIL_TIP = np.array([[(-0.96, -0.60), (-1.40, -0.60), (-1.40, 0.80), (-0.96, 0.80)]])  # two-coloured tail
WING_SPOTS = np.array([
    (0.22, -0.02), (0.00, -0.03), (-0.22, 0.04), (-0.44, 0.11),
    (0.12, 0.12), (-0.10, 0.16), (-0.32, 0.17), (-0.54, 0.18),
])
HEAD_POINTS = np.array([(0.68, -0.60), (0.77, -0.66), (0.37, -0.54), (0.67, -0.38)])  # eye, forehead, nape, throat
NECK = (0.48, -0.36)
TAIL_BASE = (-0.5, 0.07)
# fmt: on


def outline_of(part, look):
    """Name of the outline of a bill or tail: its look if that is a shape."""
    return look if look in (*BILLS, *TAILS) else {'bill': 'cone', 'tail': 'fan-shaped_tail'}[part]


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
    """Rotate points [n, 2] about centre (x, y)."""
    angle = np.deg2rad(degrees)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    return (points - np.array(centre)) @ turn.T + np.array(centre)


def wing_bars(rng):
    """Bars of a striped wing, slanted quadrilaterals from shoulder to tip, [bars, 4, 2]."""
    along = np.arange(0.13, -0.7, -0.2) + rng.uniform(-0.04, 0.04)
    corners = ((0.05, -0.3), (0.15, -0.3), (0.03, 0.5), (-0.07, 0.5))
    return np.stack([np.stack([along + dx, np.full(len(along), y)], -1) for dx, y in corners], 1)


def breast_spots(rng):
    """Centres of a spotted breast's spots, every second row shifted, [spots, 2]."""
    grid = np.stack(np.meshgrid(np.arange(0.25, 0.8, 0.145), np.arange(-0.30, 0.25, 0.125)), -1)  # [rows, columns, 2]
    grid[1::2, :, 0] += 0.07
    return grid.reshape(-1, 2) + rng.uniform(-0.012, 0.012, (grid.size // 2, 2))


def draw_shapes(rng):
    """Outlines of every look in bird coordinates, with jitter and articulation: {name: [n, 2]}."""
    head, tail, near, far = rng.uniform(-1, 1, 4) * (9, 11, 9, 9)  # degrees
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
    shapes['head points'] = rotate(HEAD_POINTS, head, NECK)
    shapes['wing striped'] = wing_bars(rng)
    shapes['breast spotted'] = breast_spots(rng)
    shapes |= {'wing spotted': WING_SPOTS, 'wing multi-colored': SHOULDER}
    shapes |= {'breast striped': BREAST_BARS, 'breast multi-colored': CHEST}
    for name, points in (('striped', TAIL_BARS), ('spotted', TAIL_SPOTS), ('multi-colored', TAIL_TIP)):
        shapes[f'tail {name}'] = rotate(points.reshape(-1, 2), tail, TAIL_BASE).reshape(points.shape)
    return {name: points * stretch for name, points in shapes.items()}


class Pose(NamedTuple):
    """Flip, rotation, scale and position of a bird."""

    flipped: bool  # faces left, showing its left side
    matrix: np.ndarray  # [2, 2], rotation and flip
    scale: float  # canvas px per unit of bird coordinates
    shift: np.ndarray  # [2], canvas px

    def to_canvas(self, points):
        """Bird coordinates [..., 2] -> canvas pixels [..., 2]."""
        return points @ self.matrix.T * self.scale + self.shift


def draw_pose(rng, shapes, looks, height, width):
    """A pose that fills most of the picture; computed from all `looks`, so that it is independent of the class."""
    flipped = bool(rng.integers(2))
    angle = rng.uniform(-20, 20)
    share = rng.uniform(0.80, 0.93)  # of the picture covered by the bird's extent
    turn = rotate(np.eye(2), angle, (0, 0)).T  # [2, 2], columns: rotated axes
    matrix = turn @ np.diag((-1.0 if flipped else 1.0, 1.0))
    names = ('body', 'crown', 'near', 'far', *looks)
    outline = np.concatenate([shapes[name] for name in names]) @ matrix.T
    low = outline.min(0)
    high = outline.max(0)
    frame = np.array((width, height))
    scale = S * share * (frame / (high - low)).min()
    room = S * frame - scale * (high - low)
    shift = room * rng.uniform(0.15, 0.85, 2) - scale * low
    return Pose(flipped, matrix, scale, shift)
