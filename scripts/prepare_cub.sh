#!/usr/bin/env bash
# Prepares CUB-200-2011, its segmentations and CUBV2 for the data loaders, from local or downloaded archives.
#
#   scripts/prepare_cub.sh [--archives DIR] [--data_root DIR] [--no_checksum] [PART...]
#
# PART: images (CUB_200_2011.tgz, 1.1 GB), segmentations (segmentations.tgz), cubv2 (CUBV2.tar); default: all three.
# Makes CUB/{images,segmentations,parts,attributes,...} and CUBV2 in the data root (default: the folder dataset of the
# checkout). Archives are searched in --archives, then in the data root, else downloaded there; they are kept. Finished
# parts have a marker in DATA_ROOT/.prepared, so the command can be interrupted and rerun. Existing files are never
# overwritten. CALM_MIRROR=<address> names a copy of the archives. Next: scripts/fetch_metadata.sh CUB,
# scripts/check_data.py --dataset=CUB

set -uo pipefail
shopt -s nullglob dotglob
# prepare_options sets data_root and work; each arrange_PART sets layout, for prepare_archive's error message.
# shellcheck disable=SC2034,SC2154 source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
RECORD=https://data.caltech.edu/records/65de6-vp158/files
ONEDRIVE='https://onedrive.live.com/download?cid=B7111B95B80CCC66&resid=B7111B95B80CCC66'

archive_of() {
    case $1 in images) echo CUB_200_2011.tgz ;; segmentations) echo segmentations.tgz ;; cubv2) echo CUBV2.tar ;; esac
}

prepare_images() {
    prepare_archive images CUB_200_2011.tgz 97eceeb196236b17998738112f37df78 "$RECORD/CUB_200_2011.tgz?download=1" 2
}
prepare_segmentations() { prepare_archive segmentations segmentations.tgz - "$RECORD/segmentations.tgz?download=1" 1; }
prepare_cubv2() { prepare_archive cubv2 CUBV2.tar - "$ONEDRIVE%2130812&authkey=AFMzb4akufUiWU0" 1; }

# The archive has attributes.txt at the top level; the loaders expect it with the other attribute files.
arrange_images() {
    layout='CUB_200_2011/images and attributes.txt are expected'
    [ -d "$1/CUB_200_2011/images" ] && [ -d "$1/CUB_200_2011/attributes" ] && [ -f "$1/attributes.txt" ] || return 1
    mv "$1/CUB_200_2011" "$2/CUB" && mv "$1/attributes.txt" "$2/CUB/attributes/attributes.txt"
}

arrange_segmentations() {
    layout='the folder segmentations is expected'
    [ -d "$1/segmentations" ] && mkdir "$2/CUB" && mv "$1/segmentations" "$2/CUB/segmentations"
}

arrange_cubv2() {
    layout='the class folders 001.* to 200.* are expected'
    local folder; folder=$(folder_with "$1" '001.*') || return 1
    mv "$folder" "$2/CUBV2"
}

prepare_options 'images segmentations cubv2' 'images segmentations cubv2' "$@"
need tar md5sum
run_parts
