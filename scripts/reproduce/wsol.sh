#!/usr/bin/env bash
# Weakly supervised localization: MaxBoxAcc and MaxBoxAccV2 (CUB, ILSVRC), PxAP (OpenImages), from the data to the
# table.
#
#   bash scripts/reproduce/wsol.sh [--toy] [--checkpoints DIR] [--dataset SET] [OPTION...]
#
# CAM on VGG-16, Inception and ResNet-50 (the protocol's baselines), CALM-ML and CALM-EM on ResNet-50. Every map is
# min-max scaled, with even thresholds, as the protocol says. Which of CALM's maps stands in the paper's table is not
# known here: scored are p(y,z|x) of the true class (jointll) and p(z|x), the sum over all classes (saliency).

set -euo pipefail
# shellcheck source=scripts/reproduce/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
table wsol "$@"
