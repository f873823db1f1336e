"""What box scores cost: a search for contours at each of T thresholds, against one for each distinct foreground.

    python scripts/benchmark_wsol.py --images=4 --size=224 --repeats=3

One process, one thread, maps of pixel noise (the slowest kind: thousands of contours a threshold). Both ways score the
largest contour and all contours, take turns, and must agree. The time is the median over the repeats.
"""

import argparse
import statistics
import time

import checkout  # noqa: F401
import cv2
import numpy as np

from wsol.scoring.boxes import best_ious, inclusive_iou
from wsol.scoring.maps import normalize
from wsol.scoring.pixels import thresholds


def every_threshold(score_map, boxes, taus):
    """The protocol's loop: highest IoU at each threshold of the largest contour and of all contours [2, T]."""
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


def parse():
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {'images': 4, 'size': 224, 'repeats': 3, 'smooth': 0}.items():
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--interval', type=float, default=0.001)
    return parser.parse_args()


def main():
    """Times both ways, which must agree, and prints the ratio."""
    args = parse()
    cv2.setNumThreads(0)
    rng = np.random.default_rng(0)
    maps = rng.random((args.images, args.size, args.size), np.float32)
    if args.smooth:
        maps = np.stack([cv2.GaussianBlur(one, (0, 0), args.smooth) for one in maps])
    maps = normalize(maps, 'minmax')
    taus = thresholds('even', args.interval)
    boxes = np.array([[0.2, 0.1, 0.7, 0.6], [0.5, 0.5, 0.9, 0.8]]) * args.size // 1
    times = {every_threshold: [], best_ious: []}
    for _ in range(args.repeats):
        results = []
        for way, seconds in times.items():
            start = time.perf_counter()
            results.append([way(one, boxes, taus) for one in maps])
            seconds.append((time.perf_counter() - start) / args.images)
        assert np.array_equal(*results), 'the two ways disagree'
    slow, fast = (statistics.median(seconds) for seconds in times.values())
    print(
        f'{args.images} maps of {args.size} px, {len(taus)} thresholds: every threshold {slow:.3f} s a map, '
        f'every distinct foreground {fast:.3f} s, {slow / fast:.1f} times faster'
    )


if __name__ == '__main__':
    main()
