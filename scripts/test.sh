#!/usr/bin/env bash
# Install into .venv, check the style and run the tests: bash scripts/test.sh [pytest arguments]
set -euo pipefail
# --no-deps: grad-cam and Quantus require a second OpenCV that needs graphics libraries.
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt requirements-test.txt --no-deps grad-cam quantus
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder "$@"
