# shellcheck shell=bash disable=SC2154
# Helpers of the scripts; sourced, never run. prepare_options sets archives, data_root, work, checksum and parts.
# CALM_MIRROR=<address>: every download comes from <address>/<file> instead of its own place (a local copy:
# file:///data/mirror).

# Who speaks: the script, or what is set before (a SLURM job's name, since SLURM calls its copies of scripts alike).
speaker=${speaker:-${0##*/}}
die() { echo "$speaker: error: $*" >&2; exit 2; }
say() { echo "$speaker: $*"; }   # what was done
note() { echo "$*" >&2; }        # how a long command gets on, apart from what it prints as its result

# The folder of the checkout; default folders lie in it, whatever folder the command is run from.
checkout() { (cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd); }

need() {  # need TOOL...: every one must be installed
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "the command '$tool' is not installed: install it and run this again"
    done
}

option_value() {  # option_value OPTION COUNT VALUE: the value of an option that needs one
    if [ "$2" -lt 2 ] || [ -z "$3" ]; then die "$1 needs a value (see --help)"; fi
    echo "$3"
}

git_blob() {  # git's id of a file's content, without git
    { printf 'blob %d\0' "$(wc -c < "$1")"; cat "$1"; } | sha1sum | cut -d' ' -f1
}

# download ADDRESS FILE [PATH]: through FILE.part, resumed where it stopped. PATH: the file's place below CALM_MIRROR.
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
        if [ -s "$file.part" ]; then why="$why; the part that came is kept in $file.part"; else rm -f "$file.part"; fi
        [ ${#made[@]} -eq 0 ] || rmdir "${made[@]}" 2>/dev/null
        die "cannot download $address ($why): go online and run this again, or put the file there" \
            "yourself as ${file%.new}"
    fi
    mv "$file.part" "$file"
}

bytes_free() {  # bytes free where a folder is, or will be
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

unpacked_bytes() {  # the room an archive takes when unpacked (compressed tar: an estimate, images hardly shrink)
    case $1 in
        *.zip) unzip -l "$1" | awk 'END { printf "%.0f\n", $1 }' ;;
        *.tgz | *.tar.gz) file_bytes "$1" | awk '{ printf "%.0f\n", $1 * 1.5 }' ;;
        *) file_bytes "$1" ;;
    esac
}

check_md5() {  # check_md5 FILE MD5: nothing is checked with --no_checksum or where no checksum is published ('-')
    [ "$2" != - ] || { say "no checksum is published for ${1##*/}: not checked"; return; }
    [ "$checksum" = yes ] || { say "checksum of ${1##*/} skipped"; return; }
    say "checking ${1##*/} ..."
    local found; found=$(md5sum < "$1" | cut -d' ' -f1)
    [ "$found" = "$2" ] ||
        die "$1 has the md5 $found instead of $2: get the file again, or give --no_checksum if it is another archive" \
            "on purpose"
}

# prepare_options CHOICES DEFAULT ARGUMENT...: sets archives, data_root, work, checksum and parts (some of CHOICES).
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
        die "--archives $archives is not a folder: give the folder the archives are in"
    [ ${#parts[@]} -gt 0 ] || read -r -a parts <<< "$default"
    work="${data_root%/}/.prepared"
}

find_archive() {  # the path of an archive on disk; nothing when it is not there
    local folder
    for folder in "$archives" "$data_root"; do
        [ -z "$folder" ] || [ ! -f "$folder/$1" ] || { echo "${folder%/}/$1"; return; }
    done
}

# get_archive NAME ADDRESS GIB: sets `archive`; one that is not on disk is downloaded into the data root ('-': cannot
# be).
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
    esac 2>/dev/null || die "$1 cannot be unpacked: it is broken or no archive; get the file again"
}

# The folder, at or below $1 (through folders that stand alone), that holds an entry matching the pattern $2.
folder_with() {
    local folder=$1 inside
    while ! compgen -G "$folder/$2" >/dev/null; do
        inside=("$folder"/*/)
        [ ${#inside[@]} -eq 1 ] && [ -d "${inside[0]}" ] || return 1
        folder=${inside[0]%/}
    done
    echo "$folder"
}

# Moves the files of a staged tree into the data root; one that is there with another content stops it before any move.
# The file $stage.moving says that the stage is complete and checked: a run that was cut off goes on from it.
merge_stage() {
    local stage=$1 path
    if [ ! -e "$stage.moving" ]; then
        while IFS= read -r -d '' path; do
            if [ -e "$data_root/$path" ]; then
                cmp -s "$stage/$path" "$data_root/$path" ||
                    die "$data_root/$path exists with another content: nothing was" \
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
        die "a file came into $data_root while its archive was moved there: see $stage"
    rm -rf "$stage" "$stage.moving"
}

# What a part that failed or was cut off left; a stage that is complete stays, the next run goes on from it.
clean_half() {
    rm -rf "$half_raw"
    [ -e "$half_stage.moving" ] || rm -rf "$half_stage"
}

# prepare_archive PART NAME MD5 ADDRESS GIB: gets, checks, unpacks and places one archive, once.
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
        "arrange_$part" "$raw" "$stage" || die "$archive has not the layout of $name: $layout; get the right archive"
        rm -rf "$raw"
    fi
    merge_stage "$stage"
    echo "$name" > "$work/$part.done"
    say "$part: done"
}

# The parts whose archive is on disk first, so that a missing one stops nothing that can be done. Calls archive_of PART.
run_parts() {
    local part
    for part in "${parts[@]}"; do [ -z "$(find_archive "$(archive_of "$part")")" ] || "prepare_$part"; done
    for part in "${parts[@]}"; do [ -n "$(find_archive "$(archive_of "$part")")" ] || "prepare_$part"; done
}
