"""Draws the scene behind a ToyBird: a texture, twigs and leaves, and distractors with the parts' colours and shapes.

Nothing here depends on the class: the scene is a pure function of the generator and of tables shared by all birds.
Letters: H, W picture height and width in px; n points of an outline. Colours are RGB floats in [0, 255].
"""

import colorsys

import cv2
import numpy as np


def colour_of(hue, saturation, value):
    """Hue in degrees, saturation and value in [0, 1] (clipped) -> RGB [3] float in [0, 255]."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue / 360 % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)))


def scene_colour(rng, hue, spread=40):
    """A random, usually muted colour near a hue (degrees)."""
    return colour_of(hue + rng.uniform(-spread, spread), rng.uniform(0.05, 0.6), rng.uniform(0.2, 0.95))


def blend(weight, first, second):
    """weight [H, W] in [0, 1] -> [H, W, 3] float32 between two colours."""
    weight = weight.astype(np.float32)
    return cv2.merge([weight * np.float32(a - b) + np.float32(b) for a, b in zip(first, second)])


def ramp(rng, height, width):
    """A linear ramp in a random direction, about [-1, 1]; [H, W]."""
    angle = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    return (x * np.cos(angle) + y * np.sin(angle)) / np.float32(1.2)


def gradient(rng, height, width, hue):
    """A gradient between two colours."""
    return blend((ramp(rng, height, width) / 2 + 0.5).clip(0, 1), scene_colour(rng, hue), scene_colour(rng, hue))


def noise(rng, height, width, hue):
    """Clouds: octaves of random grids, each finer and weaker."""
    total = np.zeros((height, width), np.float32)
    for cells, share in ((3, 0.4), (7, 0.3), (16, 0.2), (40, 0.1)):
        grid = rng.random((cells, cells), dtype=np.float32)
        total += share * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    return blend(((total - 0.5) * 2.5 + 0.5).clip(0, 1), scene_colour(rng, hue), scene_colour(rng, hue))


def stripes(rng, height, width, hue):
    """Waves of two colours with a slight brightness gradient."""
    waves = np.sin(ramp(rng, height, width) * rng.uniform(8, 50) + rng.uniform(0, 6)) + 0.3 * ramp(rng, height, width)
    return blend((waves / 2 + 0.5).clip(0, 1), scene_colour(rng, hue), scene_colour(rng, hue))


def foliage(rng, height, width, hue):
    """Leaves everywhere."""
    picture = gradient(rng, height, width, hue)
    for _ in range(int(rng.integers(60, 140))):
        draw_leaf(rng, picture, scene_colour(rng, hue, 30), rng.uniform(0.02, 0.09))
    return picture


def blobs(rng, height, width, hue):
    """Out-of-focus lights."""
    picture = gradient(rng, height, width, hue)
    for _ in range(int(rng.integers(12, 40))):
        centre = (rng.random(2) * (width, height)).astype(int).tolist()
        radius = int(height * rng.uniform(0.02, 0.14))
        cv2.circle(picture, centre, radius, scene_colour(rng, hue).tolist(), -1, cv2.LINE_AA)
    return cv2.blur(picture, (5, 5))


TEXTURES = (gradient, noise, stripes, foliage, blobs)


def draw_leaf(rng, picture, colour, size):
    """Draw a slim ellipse, half length `size` relative to the picture's height, in place."""
    height, width = picture.shape[:2]
    centre = (rng.random(2) * (width, height)).astype(int).tolist()
    long = max(int(size * height), 2)
    short = max(int(size * height * rng.uniform(0.2, 0.5)), 1)
    cv2.ellipse(picture, centre, (long, short), rng.uniform(0, 360), 0, 360, colour.tolist(), -1, cv2.LINE_AA)


def draw_twig(rng, picture, colour):
    """Draw a bent line across part of the picture, in place."""
    height, width = picture.shape[:2]
    start = rng.random(2) * (width, height)
    step = rng.normal(size=2) * 0.22 * height
    path = start + np.arange(4)[:, None] * step + rng.normal(size=(4, 2)) * 0.04 * height
    cv2.polylines(picture, [path.astype(np.int32)], False, colour.tolist(), int(rng.integers(2, 7)), cv2.LINE_AA)


def draw_patch(rng, picture, outline, colour, marks):
    """Draw a distractor in place: an outline [n, 2] (unit size), rotated, filled and patterned like a bird's part.

    marks: 0 none, 1 pale bars on dark, 2 dark spots on pale.
    """
    height, width = picture.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    scale = height * rng.uniform(0.20, 0.36)
    turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    shift = rng.random(2) * (width, height)

    def place(points):
        return np.round(((points - outline.mean(0)) @ turn.T + shift)).astype(np.int32)

    ground = (colour, colour * 0.4, colour * 0.3 + 170)[marks]
    cv2.fillPoly(picture, [place(outline)], ground.tolist(), cv2.LINE_AA)
    low = outline.min(0)
    high = outline.max(0)
    for share in np.arange(0.2, 0.9, 0.22) if marks else ():
        if marks == 1:
            x = (low + (high - low) * share)[0]
            ends = np.array([(x, (low * 0.7 + high * 0.3)[1]), (x, (low * 0.3 + high * 0.7)[1])])
            cv2.line(picture, *place(ends).tolist(), (240, 240, 240), max(int(0.1 * scale), 2), cv2.LINE_AA)
        else:
            centre = low + (high - low) * (share, 0.5)
            radius = max(int(0.055 * scale), 2)
            cv2.circle(picture, place(centre[None])[0].tolist(), radius, (28, 28, 28), -1, cv2.LINE_AA)
    cv2.polylines(picture, [place(outline)], True, (ground * 0.5).tolist(), 1, cv2.LINE_AA)


def draw_scene(rng, height, width, outlines, colours):
    """The picture before the bird is painted, [H, W, 3] float32 in [0, 255].

    outlines: list of [n, 2] arrays, shapes of bird parts at the bird's scale; colours: list of RGB of their looks.
    """
    hue = rng.uniform(0, 360)
    picture = np.ascontiguousarray(TEXTURES[rng.integers(len(TEXTURES))](rng, height, width, hue))
    for _ in range(int(rng.integers(2, 6))):
        draw_twig(rng, picture, scene_colour(rng, 30, 20) * 0.7)
    for _ in range(int(rng.integers(3, 12))):
        draw_leaf(rng, picture, scene_colour(rng, 100, 50), rng.uniform(0.03, 0.10))
    for _ in range(int(rng.integers(4, 10))):
        outline = outlines[rng.integers(len(outlines))]
        colour = colours[rng.integers(len(colours))]
        draw_patch(rng, picture, outline, colour, int(rng.integers(3)))
    blur = rng.uniform(0, 1.6)
    return cv2.GaussianBlur(picture, (5, 5), blur) if blur > 0.3 else picture
