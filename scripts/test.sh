#!/usr/bin/env bash
# Installs into .venv, checks the style and runs the tests: bash scripts/test.sh [pytest arguments]
set -euo pipefail
# grad-cam and Quantus ask for a second OpenCV, which needs graphics libraries.
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" requirements.txt requirements-test.txt --no-deps grad-cam quantus
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder "$@"
