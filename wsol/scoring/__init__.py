"""Scores of attribution maps: pure functions that accumulate counts over images and compute figures from them.

    maps     preparation of maps: resizing, smoothing, scaling to [0, 1]
    pixels   pixels against masks: thresholds, histograms, PxAP, mask files
    boxes    boxes above a threshold against true boxes: MaxBoxAcc, MaxBoxAccV2
    regions  a map against one image's true region: proportion, pointing game, and all scores that need ground truth
    erasing  scores by modified images: remove-and-classify, confidence drop, deletion and insertion
    imputing ROAD: pixels imputed from their neighbours
    sanity   randomized weights, sensitivity, infidelity, sparseness, ADCC
    cues     difference of two classes' maps against the parts that distinguish the classes
    scores   METRICS, the registry of scores, and their computation

All evaluations share one scheme. A batch adds a plain dict {name: array, tensor or number}; `add_up` sums such dicts; a
pure function `..._figures` computes figures from the sums. A `Tally` holds the sums and the values of each image, so an
evaluation can be sharded and resumed anywhere. Source: the released code and the WSOL evaluation protocol (Choe et al.,
CVPR 2020, and its extended version).
"""

from typing import NamedTuple


class Tally(NamedTuple):
    """Results of some images."""

    totals: dict  # {name: array, tensor or number}: summed over images
    rows: dict  # {name: [array or tensor [b, ...], ...]}: one row per image, a list of arrays in order

    def add(self, more):
        """Add the `Tally` of further images, in place."""
        add_up(self.totals, more.totals)
        add_up(self.rows, more.rows)  # concatenates lists


def join(tallies):
    """The `Tally` of several tallies, in order."""
    whole = Tally({}, {})
    for tally in tallies:
        whole.add(tally)
    return whole


def add_up(total, more):
    """Add the values of `more` to those of `total`, in place; new names are inserted."""
    for name, value in more.items():
        total[name] = total[name] + value if name in total else value
