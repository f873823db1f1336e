#!/usr/bin/env bash
# Installs into .venv and runs the tests: bash scripts/test.sh [pytest arguments]
set -euo pipefail
REQUIREMENTS="requirements.txt requirements-test.txt"
NO_DEPENDENCIES="grad-cam"           # it asks for a second OpenCV that needs graphics libraries
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec .venv/bin/python -m pytest tests -n 2 --dist loadfile "$@"
