#!/usr/bin/env bash
# Cue localization, the paper's table: mPxAP of seven maps on CUB, from the data to the table.
#
#   bash scripts/reproduce/cue_localization.sh [--toy] [--checkpoints DIR] [OPTION...]
#
# Four gradient maps and CAM explain one CAM network; CALM-ML and CALM-EM each their own.

set -euo pipefail
# shellcheck source=scripts/reproduce/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
table cue_localization "$@"
