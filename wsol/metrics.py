"""Temporary: the old names of what wsol/scoring/ holds now."""

from .scoring.erasing import ERASE_K, descending_rank, erase, erasing_ratios, random_ranks  # noqa: F401
from .scoring.maps import normalize, resize, smooth  # noqa: F401
from .scoring.pixels import histogram_edges, pixel_average_precision, pixel_histogram, thresholds  # noqa: F401
