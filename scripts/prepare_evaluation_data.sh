#!/usr/bin/env bash
# The images, masks and part annotations that evaluation needs, for all data sets, without what only training needs.
#
#   scripts/prepare_evaluation_data.sh [--archives DIR] [--data_root DIR] [--no_checksum] [DATASET...]
#
# DATASET: CUB, OpenImages, ILSVRC; default: all. Calls prepare_cub.sh (images, whose one archive of 1.1 GB holds training
# and test, segmentations, cubv2), prepare_openimages.sh (evaluation) and prepare_imagenet.sh (val2, and val, whose
# archive needs your account at image-net.org); the options are theirs. A set that cannot be prepared stops no other.
# Then: scripts/fetch_metadata.sh all, scripts/check_data.py --dataset=CUB --splits val test

set -uo pipefail
SCRIPTS="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/lib.sh
source "$SCRIPTS/lib.sh"

# prepare_options sets archives, data_root, checksum and parts, which are data sets here.
# shellcheck disable=SC2154
prepare() {
    local options=(--data_root "$data_root")
    [ -z "$archives" ] || options+=(--archives "$archives")
    [ "$checksum" = yes ] || options+=(--no_checksum)
    case $1 in
        CUB) bash "$SCRIPTS/prepare_cub.sh" "${options[@]}" images segmentations cubv2 ;;
        OpenImages) bash "$SCRIPTS/prepare_openimages.sh" "${options[@]}" evaluation ;;
        ILSVRC) bash "$SCRIPTS/prepare_imagenet.sh" "${options[@]}" val2 val ;;
    esac
}

prepare_options 'CUB OpenImages ILSVRC' 'CUB OpenImages ILSVRC' "$@"
failed=()
for name in "${parts[@]}"; do prepare "$name" || failed+=("$name"); done
[ ${#failed[@]} -eq 0 ] || die "not prepared: ${failed[*]} (the reason is above); what is done is not repeated"
