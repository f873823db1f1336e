#!/usr/bin/env bash
# The paper's cue localization table: mPxAP of seven maps on CUB.
#
#   bash scripts/reproduce/cue_localization.sh [--toy] [--checkpoints DIR] [OPTION...]
#
# Four gradient maps and CAM explain one CAM network; CALM-ML and CALM-EM explain their own.

set -euo pipefail
# shellcheck source=scripts/reproduce/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
table cue_localization "$@"
