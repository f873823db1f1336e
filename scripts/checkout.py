"""Import this first: makes the project's modules importable from scripts, whatever the working directory.

ROOT is the checkout's folder.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import engine.before_torch  # noqa: E402, F401 (before PyTorch is loaded)
