"""Temporary: the old names of what wsol/scoring/ holds now."""

from dataclasses import make_dataclass

from .scoring.erasing import correct_random, count_erased, wins  # noqa: F401
from .scoring.regions import POINTING_TOLERANCE, Truth, box_region, region_scores  # noqa: F401
from .scoring.scores import METRICS, classifier_scores, figures  # noqa: F401
from .scoring.scores import Settings as _Settings

Settings = make_dataclass('Settings', _Settings._fields, frozen=True)
