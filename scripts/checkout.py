"""Imported for its effect: the project's modules are found from wherever a script is run.

ROOT is the folder of the checkout.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import engine.idle  # noqa: E402, F401 (before PyTorch is loaded)
