"""Scoring attribution maps: pure functions that say what images add to counts, and what figures the counts give.

    maps     maps before they are scored: resized, smoothed, brought to [0, 1]
    pixels   scores of pixels against masks: thresholds, histograms, PxAP, the mask files
    boxes    boxes around what lies above a threshold against true boxes: MaxBoxAcc, MaxBoxAccV2
    regions  a map against one image's true region: proportion, the pointing game, and all scores that need ground truth
    erasing  scores by changed images: remove-and-classify, confidence drop, deletion and insertion
    imputing ROAD: pixels replaced by what their neighbours make likely
    sanity   does a map mean something: random weights, sensitivity, infidelity, sparseness, ADCC
    cues     the difference of two classes' maps against the parts that tell the classes apart
    scores   METRICS, the registry of the scores that maps are compared by, and what it takes to compute them

Every evaluation has one form. What a batch adds is a plain dict {name: array, tensor or number}; `add_up` adds such
dicts; a pure function `..._figures` makes the figures of the sums. What each image gave stands beside the sums, in a
`Tally`. So an evaluation may be cut into shards and go on anywhere. Source: the released code and the WSOL evaluation
protocol (Choe et al., CVPR 2020, and its extended version).
"""

from typing import NamedTuple


class Tally(NamedTuple):
    """What some images give."""

    totals: dict  # {name: array, tensor or number}: added up over the images
    rows: dict  # {name: [array or tensor [b, ...], ...]}: a row an image, the arrays one behind the other

    def add(self, more):
        """Add what further images give, another `Tally`, in place."""
        add_up(self.totals, more.totals)
        add_up(self.rows, more.rows)  # lists: one behind the other


def join(tallies):
    """The `Tally` of several tallies, in their order."""
    whole = Tally({}, {})
    for tally in tallies:
        whole.add(tally)
    return whole


def add_up(total, more):
    """Add the values of the dict `more` to those of `total`, in place; a name that is new comes in as it is."""
    for name, value in more.items():
        total[name] = total[name] + value if name in total else value
