"""Box scores: one contour search per distinct foreground, over one per threshold."""

import cv2
import numpy as np

from benchmarks.timing import Row, seconds
from wsol.scoring.boxes import best_ious, inclusive_iou
from wsol.scoring.maps import normalize
from wsol.scoring.pixels import thresholds

INTERVAL = 0.001  # 1000 thresholds


def every_threshold(score_map, boxes, taus):
    """The protocol's loop: highest IoU per threshold, of the largest contour and of all contours [2, T]."""
    image = (score_map * 255).astype(np.uint8)
    last = len(score_map) - 1
    found = []
    for tau in taus:
        _, binary = cv2.threshold(image, int(tau * image.max()), 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        proposals = [(0, 0, 0, 0)]
        largest = 0
        if contours:
            largest = max(range(len(contours)), key=lambda index: cv2.contourArea(contours[index]))
            rectangles = [cv2.boundingRect(contour) for contour in contours]
            proposals = [(x, y, min(x + w, last), min(y + h, last)) for x, y, w, h in rectangles]
        ious = inclusive_iou(np.array(proposals), boxes).max(axis=1)
        found.append((ious[largest], ious.max()))
    return np.array(found).T


def box_rows(args, device):
    """Maps of pixel noise, the slowest kind (thousands of contours per threshold), or with `--blur` of smooth noise;
    asserts that both implementations agree."""
    cv2.setNumThreads(0)
    maps = np.random.default_rng(0).random((args.images, args.size, args.size), np.float32)
    if args.blur:
        maps = np.stack([cv2.GaussianBlur(one, (0, 0), args.blur) for one in maps])
    maps = normalize(maps, 'minmax')
    taus = thresholds('even', INTERVAL)
    boxes = np.array([[0.2, 0.1, 0.7, 0.6], [0.5, 0.5, 0.9, 0.8]]) * args.size // 1
    ways = best_ious, every_threshold
    assert np.array_equal(*([way(one, boxes, taus) for one in maps] for way in ways)), 'the two ways disagree'
    ours, other = seconds(
        [lambda way=way: [way(one, boxes, taus) for one in maps] for way in ways], device, args.repeats
    )
    note = f'{len(taus)} thresholds: {ours / args.images:.3f} and {other / args.images:.3f} s per map'
    return [
        Row(f'box scores of {args.images} maps of {args.size} px', 'a search per threshold', ours / other, '', note)
    ]
