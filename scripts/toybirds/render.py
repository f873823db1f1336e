"""Renders a ToyBird: a side view of a bird with eight parts, each with one of its looks, in front of a random scene.

`render_bird` is a pure function of (looks, generator, size, table). It uses the same random numbers for all looks, so
two calls with equal generators and one look changed give pictures that differ only in that part.

Letters: H, W picture height and width in px; S supersampling factor of the canvas.
"""

from typing import NamedTuple

import cv2
import numpy as np

from .classes import LABELS, PART_LOOKS
from .painting import FAR_LEG, LOOK_HSV, Painter, draw_colours, paint_bird
from .scene import colour_of, draw_scene
from .shapes import BILLS, TAILS, S, draw_pose, draw_shapes, outline_of

# fmt: off
CUB_PARTS = (
    'back', 'beak', 'belly', 'breast', 'crown', 'forehead', 'left eye', 'left leg', 'left wing', 'nape',
    'right eye', 'right leg', 'right wing', 'tail', 'throat',
)
# fmt: on
TAIL_AND_BILL_HSV = ((185, 0.60, 0.58), (31, 0.72, 0.85))


class Bird(NamedTuple):
    """A picture and its ground truth."""

    image: np.ndarray  # [H, W, 3] uint8 RGB
    labels: np.ndarray  # [H, W] uint8, part visible at each pixel, 0 for none
    segmentation: np.ndarray  # [H, W] uint8, 255 bird
    part_locs: np.ndarray  # [15, 3] float: x, y in pixels and visibility (0 or 1) in the order of CUB_PARTS


def light_field(rng, torso, height, width):
    """Brightness factor [H, W, 1] float32: a linear gradient and soft shading of the body. torso: bool canvas."""
    angle = rng.uniform(0, 2 * np.pi)
    strength = rng.uniform(0.05, 0.18)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    small = cv2.resize(torso.astype(np.float32), (width // 8, height // 8), interpolation=cv2.INTER_AREA)
    around = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.6), (width, height), interpolation=cv2.INTER_LINEAR)
    away = np.float32([(1, 0, 6 * np.cos(angle)), (0, 1, 6 * np.sin(angle))])
    round_body = cv2.warpAffine(around, away, (width, height))
    directed = 1 + strength * (x * np.cos(angle) + y * np.sin(angle))
    return (directed * (0.80 + 0.22 * (1 - around + round_body).clip(0.4, 1.15)))[..., None].astype(np.float32)


def point_inside(area):
    """A point (x, y) well inside an area [H, W] uint8, near its centroid, which for a forked tail lies outside."""
    left, top, wide, high = cv2.boundingRect(area)
    depth = cv2.distanceTransform(np.pad(area[top : top + high, left : left + wide], 1), cv2.DIST_L2, 3)
    y, x = np.nonzero(depth)
    best = np.argmax(depth[y, x] - 0.25 * np.hypot(x - x.mean(), y - y.mean()))
    return x[best] + left - 1, y[best] + top - 1


def locate_parts(pose, head_points, labels):
    """CUB's fifteen part points [15, 3]: painted parts from their visible pixels, head points from geometry.

    labels: [H, W] as painted, with FAR_LEG.
    """
    side, other = ('left', 'right') if pose.flipped else ('right', 'left')  # visible side, hidden side
    eye, forehead, nape, throat = pose.to_canvas(head_points) / S
    points = {f'{side} eye': eye, 'forehead': forehead, 'nape': nape, 'throat': throat}
    label_of = {name: LABELS[name] for name in ('back', 'belly', 'breast', 'crown', 'tail')}
    label_of |= {'beak': LABELS['bill'], f'{side} wing': LABELS['wing'], f'{side} leg': LABELS['leg']}
    label_of[f'{other} leg'] = FAR_LEG
    for name, label in label_of.items():
        area = (labels == label).astype(np.uint8)
        if area.any():
            points[name] = point_inside(area)
    return np.array([(*points[name], 1.0) if name in points else (0.0, 0.0, 0.0) for name in CUB_PARTS])


def develop(rng, scene, bird, share):
    """uint8 picture of the bird [H, W, 3] over the scene [H, W, 3] by its coverage [H, W], with camera noise."""
    gain = np.float32(rng.uniform(0.85, 1.12))
    offset = np.float32(rng.uniform(-12, 12))
    grain = np.float32(rng.uniform(0, 5))
    picture = (scene * (1 - share[..., None]) + bird - 128) * gain + (128 + offset)
    picture += rng.integers(-1, 2, picture.shape, dtype=np.int8) * grain
    return picture.clip(0, 255).astype(np.uint8)


def looks_of_scene(table):
    """(bill and tail outlines, list of RGB) that a scene of any class may contain; table: the design's looks."""
    shown = [outline_of(part, look) for part in ('bill', 'tail') for look in table[part][1]]
    outlines = [name for name in (*BILLS, *TAILS) if name in shown]
    pairs = [(part, look) for part, (_, looks) in table.items() for look in looks]
    hsv = [*(LOOK_HSV[pair] for pair in pairs if pair in LOOK_HSV), *TAIL_AND_BILL_HSV]
    return outlines, [colour_of(*one) for one in hsv]


def render_bird(looks, rng, size, table=PART_LOOKS):
    """Render a `Bird`.

    looks: {part: look} for all PARTS, with values from table, the design's looks; rng: numpy Generator; size: the
    picture's shorter side in px (the longer is up to an eighth longer). Raises KeyError for an unknown look.
    """
    sides = (size, size + int(rng.integers(size // 8 + 1)))
    height, width = sides if rng.integers(2) else sides[::-1]
    shapes = draw_shapes(rng)
    names, colours = looks_of_scene(table)
    outlines = [shapes[name] for name in ('crown', 'wing', 'breast', 'back', *names)]
    scene = draw_scene(rng, height, width, outlines, colours)
    pose = draw_pose(rng, shapes, names, height, width)
    painter = Painter(height, width)
    torso = paint_bird(painter, pose, shapes, looks, draw_colours(rng, looks))
    layer = cv2.merge([painter.look_up(one) for one in np.array(painter.colours).T])  # [S H, S W, 3], 0 off the bird
    share = cv2.resize((painter.index > 0).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)  # [H, W]
    bird = cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA) * light_field(rng, torso, height, width)
    image = develop(rng, scene, bird, share)
    labels = np.ascontiguousarray(painter.look_up(painter.labels)[::S, ::S])  # [H, W]
    part_locs = locate_parts(pose, shapes['head points'], labels)
    shown = np.array([*range(FAR_LEG), LABELS['leg'], 0], np.uint8)  # label while painting -> label in the file
    return Bird(image, shown[labels], np.ceil(255 * share).astype(np.uint8), part_locs)
