# shellcheck shell=bash disable=SC2154
# Shell functions shared by the scripts; sourced, never run.
# CALM_MIRROR=<address>: download everything from <address>/<file> instead (a local copy: file:///data/mirror).

unset CDPATH    # with it, `cd` prints

# Prefix of messages: the script's name, or preset (the SLURM job's name, as SLURM runs renamed copies of scripts).
speaker=${speaker:-${0##*/}}
die() { echo "$speaker: error: $*" >&2; exit 2; }
say() { echo "$speaker: $*"; }
note() { echo "$*" >&2; }        # progress, kept apart from results on standard output

# The checkout's root, which contains the default folders, independent of the working directory.
checkout() { (cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd); }

need() {  # need TOOL...: fail unless all are installed
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "the command '$tool' is not installed: install it and run this again"
    done
}

option_value() {  # option_value OPTION COUNT VALUE: the option's value; fails without one
    if [ "$2" -lt 2 ] || [ -z "$3" ]; then die "$1 needs a value (see --help)"; fi
    echo "$3"
}

git_blob() {  # git blob id of a file, without git
    { printf 'blob %d\0' "$(wc -c < "$1")"; cat "$1"; } | sha1sum | cut -d' ' -f1
}

# download ADDRESS FILE [PATH]: via FILE.part, resumable. PATH: the file's path below CALM_MIRROR.
download() {
    local address=$1 file=$2 folder bar=--silent why made=()
    [ -z "${CALM_MIRROR:-}" ] || address="${CALM_MIRROR%/}/${3:-${file##*/}}"
    need curl
    folder=$(dirname "$file")
    while [ ! -d "$folder" ]; do made+=("$folder"); folder=$(dirname "$folder"); done
    mkdir -p "$(dirname "$file")" || die "cannot make the folder of $file"
    [ ! -t 2 ] || bar=--progress-bar
    if ! why=$(curl --fail --location $bar --connect-timeout 20 --retry 2 --continue-at - --write-out '%{errormsg}' \
                    --output "$file.part" "$address"); then
        if [ -s "$file.part" ]; then why="$why; the partial file is kept as $file.part"; else rm -f "$file.part"; fi
        [ ${#made[@]} -eq 0 ] || rmdir "${made[@]}" 2>/dev/null
        die "cannot download $address ($why): go online and run this again, or put the file there" \
            "yourself as ${file%.new}"
    fi
    mv "$file.part" "$file"
}

bytes_free() {  # free bytes at a folder, which need not exist yet
    local folder=$1
    until [ -d "$folder" ]; do folder=$(dirname "$folder"); done
    df -P -k "$folder" | awk 'NR == 2 { printf "%.0f\n", $4 * 1024 }'
}

need_space() {  # need_space FOLDER BYTES WHAT
    local free; free=$(bytes_free "$1")
    [ "$free" -ge "$2" ] ||
        die "$3 needs $(gib "$2") GiB free in $1, which has $(gib "$free"): make room or give another --data_root"
}

gib() { awk -v bytes="$1" 'BEGIN { printf "%.1f", bytes / 1073741824 }'; }
file_bytes() { wc -c < "$1" | tr -d ' '; }

unpacked_bytes() {  # unpacked size of an archive (compressed tar: an estimate, as images hardly compress)
    case $1 in
        *.zip) unzip -l "$1" | awk 'END { printf "%.0f\n", $1 }' ;;
        *.tgz | *.tar.gz) file_bytes "$1" | awk '{ printf "%.0f\n", $1 * 1.5 }' ;;
        *) file_bytes "$1" ;;
    esac
}

check_md5() {  # check_md5 FILE MD5: skipped with --no_checksum or if no checksum is published ('-')
    [ "$2" != - ] || { say "no checksum is published for ${1##*/}: not checked"; return; }
    [ "$checksum" = yes ] || { say "checksum of ${1##*/} skipped"; return; }
    say "checking ${1##*/} ..."
    local found; found=$(md5sum < "$1" | cut -d' ' -f1)
    [ "$found" = "$2" ] ||
        die "$1 has the md5 $found instead of $2: get the file again, or give --no_checksum for a different archive"
}

# prepare_options CHOICES DEFAULT ARGUMENT...: sets archives, data_root, work, checksum and parts (from CHOICES).
prepare_options() {
    local choices=$1 default=$2; shift 2
    archives='' data_root="$(checkout)/dataset" checksum=yes parts=()
    while [ $# -gt 0 ]; do
        case $1 in
            --archives) archives=$(option_value "$1" $# "${2:-}") || exit 2; shift ;;
            --archives=*) archives=${1#*=} ;;
            --data_root) data_root=$(option_value "$1" $# "${2:-}") || exit 2; shift ;;
            --data_root=*) data_root=${1#*=} ;;
            --no_checksum) checksum=no ;;
            -h | --help) sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"; exit 0 ;;
            *)
                [[ " $choices " == *" $1 "* ]] ||
                    die "unknown argument '$1': allowed are the parts $choices and the options --archives DIR," \
                        "--data_root DIR, --no_checksum"
                parts+=("$1") ;;
        esac
        shift
    done
    [ -z "$archives" ] || [ -d "$archives" ] ||
        die "--archives $archives is not a folder: give the folder that contains the archives"
    [ ${#parts[@]} -gt 0 ] || read -r -a parts <<< "$default"
    work="${data_root%/}/.prepared"
}

find_archive() {  # path of an archive on disk; empty if missing
    local folder
    for folder in "$archives" "$data_root"; do
        [ -z "$folder" ] || [ ! -f "$folder/$1" ] || { echo "${folder%/}/$1"; return; }
    done
}

# get_archive NAME ADDRESS GIB: sets `archive`; downloads it into the data root if missing (ADDRESS '-': impossible).
get_archive() {
    archive=$(find_archive "$1")
    [ -z "$archive" ] || return 0
    [ "$2" != - ] || die "$1 is not in ${archives:-$data_root} and cannot be downloaded without an account: get it at" \
        "image-net.org, then give --archives DIR"
    need_space "$data_root" $((2 * $3 * 1073741824)) "$1 and its content"
    say "downloading $1 ..."
    download "$2" "$data_root/$1"
    archive="$data_root/$1"
}

unpack() {  # unpack ARCHIVE FOLDER
    case $1 in
        *.zip) unzip -q "$1" -d "$2" || [ $? -eq 1 ] ;;  # 1: unpacked, with a warning
        *) tar -xf "$1" -C "$2" --no-same-owner ;;
    esac 2>/dev/null || die "$1 cannot be unpacked: it is damaged or not an archive; get the file again"
}

# folder_with FOLDER PATTERN: the folder with an entry matching PATTERN: FOLDER, or below it through single subfolders.
folder_with() {
    local folder=$1 inside
    while ! compgen -G "$folder/$2" >/dev/null; do
        inside=("$folder"/*/)
        [ ${#inside[@]} -eq 1 ] && [ -d "${inside[0]}" ] || return 1
        folder=${inside[0]%/}
    done
    echo "$folder"
}

# Move a staged tree into the data root; fail before any move if a file exists there with different content.
# The file $stage.moving marks a complete, checked stage from which an interrupted run resumes.
merge_stage() {
    local stage=$1 path
    if [ ! -e "$stage.moving" ]; then
        while IFS= read -r -d '' path; do
            if [ -e "$data_root/$path" ]; then
                cmp -s "$stage/$path" "$data_root/$path" ||
                    die "$data_root/$path exists with different content: nothing was" \
                    "changed; move it away or give another --data_root"
                rm -f "$stage/$path"
            fi
        done < <(cd "$stage" && find . -type f -printf '%P\0')
        : > "$stage.moving"
    fi
    while IFS= read -r -d '' path; do
        mkdir -p "$data_root/$path"
        find "$stage/$path" -maxdepth 1 -type f -exec mv -n -t "$data_root/$path/" {} +
    done < <(cd "$stage" && find . -type d -printf '%P\0')
    [ -z "$(find "$stage" -type f -print -quit)" ] ||
        die "a file appeared in $data_root while its archive was moved there: see $stage"
    rm -rf "$stage" "$stage.moving"
}

# Remove the leftovers of a failed or interrupted part, but keep a complete stage for the next run.
clean_half() {
    rm -rf "$half_raw"
    [ -e "$half_stage.moving" ] || rm -rf "$half_stage"
}

# prepare_archive PART NAME MD5 ADDRESS GIB: get, check, unpack and install one archive, once.
# The function arrange_PART RAW OUT moves the unpacked files to their place in OUT, which mirrors the data root.
prepare_archive() {
    local part=$1 name=$2 stage="$work/$1.stage" raw="$work/$1.raw" archive
    [ ! -e "$work/$part.done" ] || { say "$part: already done ($work/$part.done)"; return; }
    if [ ! -e "$stage.moving" ]; then
        get_archive "$name" "$4" "$5"
        check_md5 "$archive" "$3"
        need_space "$data_root" "$(unpacked_bytes "$archive")" "$part"
        mkdir -p "$work" || die "cannot write into $data_root: give another --data_root"
        rm -rf "$stage" "$raw"
        half_raw=$raw half_stage=$stage
        trap clean_half EXIT
        mkdir "$stage" "$raw"
        say "unpacking $name ..."
        unpack "$archive" "$raw"
        "arrange_$part" "$raw" "$stage" || die "$archive does not have the layout of $name: $layout; get the right archive"
        rm -rf "$raw"
    fi
    merge_stage "$stage"
    echo "$name" > "$work/$part.done"
    say "$part: done"
}

# Parts whose archive is on disk come first, so that a missing archive does not block them. Calls archive_of PART.
run_parts() {
    local part
    for part in "${parts[@]}"; do [ -z "$(find_archive "$(archive_of "$part")")" ] || "prepare_$part"; done
    for part in "${parts[@]}"; do [ -n "$(find_archive "$(archive_of "$part")")" ] || "prepare_$part"; done
}
