#!/usr/bin/env bash
# Weakly supervised localization: MaxBoxAcc and MaxBoxAccV2 (CUB, ILSVRC), PxAP (OpenImages).
#
#   bash scripts/reproduce/wsol.sh [--toy] [--checkpoints DIR] [--dataset SET] [OPTION...]
#
# CAM on VGG-16, Inception and ResNet-50 (the protocol's baselines), CALM-ML and CALM-EM on ResNet-50. As in the protocol,
# every map is min-max scaled, with even thresholds. It is unknown which of CALM's maps the paper's table uses, so both
# p(y,z|x) of the true class (jointll) and p(z|x), the sum over all classes (saliency), are scored.

set -euo pipefail
# shellcheck source=scripts/reproduce/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
table wsol "$@"
