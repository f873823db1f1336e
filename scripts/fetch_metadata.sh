#!/usr/bin/env bash
# Downloads split and label files of the evaluation protocol that make_metadata.py cannot derive, checking git blob ids.
#
#   scripts/fetch_metadata.sh [--metadata_root DIR] [DATASET...]
#
# DATASET: CUB, ILSVRC, OpenImages: all files of the data set; all: every file. Default: the CUBV2 and ImageNetV2 boxes,
# the proxy list of ILSVRC and the OpenImages lists. Files and ids are listed in metadata_hashes.txt. Existing files are
# kept if they match and never overwritten if they do not. CALM_MIRROR=<address> names a copy, with the paths
# metadata/... --metadata_root: default, the folder metadata of the checkout.

set -uo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
TABLE="$(dirname "${BASH_SOURCE[0]}")/metadata_hashes.txt"
EMPTY=e69de29bb2d1d6434b8b29ae775ad8c2e48c5391   # git blob id of an empty file

parse() {
    metadata_root="$(checkout)/metadata" wanted=()
    while [ $# -gt 0 ]; do
        case $1 in
            --metadata_root) metadata_root=$(option_value "$1" $# "${2:-}") || exit 2; shift ;;
            --metadata_root=*) metadata_root=${1#*=} ;;
            -h | --help) sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"; exit 0 ;;
            CUB | ILSVRC | OpenImages | all) wanted+=("$1") ;;
            *) die "unknown argument '$1': allowed are CUB, ILSVRC, OpenImages, all and --metadata_root DIR" ;;
        esac
        shift
    done
}

is_wanted() {  # is_wanted KIND PATH
    [ ${#wanted[@]} -gt 0 ] || { [ "$1" = fetched ]; return; }
    local set=${2#metadata/}
    case " ${wanted[*]} " in *" all "* | *" ${set%%/*} "*) return 0 ;; *) return 1 ;; esac
}

fetch_one() {  # fetch_one SOURCE BLOB PATH; status 1: a different file exists
    local file="${metadata_root%/}/${3#metadata/}" found
    if [ -e "$file" ]; then
        [ "$(git_blob "$file")" != "$2" ] || { kept=$((kept + 1)); return 0; }
        note "$speaker: error: $file differs from the protocol's (git blob $2): not overwritten;" \
            "move it away to fetch it"
        return 1
    fi
    local new="$file.new"
    if [ "$2" = $EMPTY ]; then mkdir -p "$(dirname "$file")" && : > "$new"; else download "$1/$3" "$new" "$3"; fi
    found=$(git_blob "$new")
    if [ "$found" != "$2" ]; then
        rm -f "$new"
        die "$1/$3 has the git blob id $found instead of $2: nothing was written; try again later"
    fi
    mv "$new" "$file"
    fetched=$((fetched + 1))
}

main() {
    parse "$@"
    need sha1sum
    local source='' blob kind path status=0
    kept=0 fetched=0
    while read -r blob kind path; do
        case $blob in
            '' | '#'*) continue ;;
            source) source=$kind; continue ;;
        esac
        is_wanted "$kind" "$path" || continue
        fetch_one "$source" "$blob" "$path" || status=2
    done < "$TABLE"
    say "$fetched downloaded, $kept already present, in $metadata_root"
    exit $status
}

main "$@"
