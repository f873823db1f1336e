# shellcheck shell=bash
# Sourced by the other scripts: changes to the checkout's root and installs requirements files into .venv.
#
#     source setup.sh FILE... [--no-deps PACKAGE...]       PACKAGE: installed without its dependencies
#
# Versions are those of constraints.txt if available. Reinstalls only when one of these files, or one included with -r,
# changes.
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

make_environment() {
    local python
    [ ! -x .venv/bin/python ] || return 0
    python=$(command -v python3.11 || command -v python3) || die "no python3: install Python 3.11"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$python is $("$python" -V): Python 3.11 or later is needed"
    note "creating .venv"
    "$python" -m venv .venv ||
        die "$python cannot create a virtual environment: on Debian, apt install python3-venv"
}

with_nested() {  # with_nested FILE...: these files and those they include with -r
    local file word nested folder
    for file in "$@"; do
        echo "$file"
        folder=$(dirname "$file")
        while read -r word nested || [ -n "$word" ]; do
            [ "$word" != -r ] || with_nested "$folder/$nested"
        done < "$file"
    done
}

pip_install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }

install() {  # install PIP ARGUMENT...: with the versions of constraints.txt, else any allowed versions
    ! pip_install -c constraints.txt "$@" 2> /dev/null || return 0
    note "not all versions in constraints.txt are available here: installing others that the requirements allow"
    pip_install "$@" || die "could not install $*: is the package registry reachable?"
}

mark_of() {  # mark_of FILE, or mark_of --no-deps PACKAGE...: the file in .venv that says that this is installed
    local files=()
    [ "$1" = --no-deps ] || mapfile -t files < <(with_nested "$1")
    { echo "$*"; cat "${files[@]}" constraints.txt; } |
        .venv/bin/python -c 'import hashlib, sys
print(".venv/installed-" + hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])'
}

set_up() {  # set_up FILE... [--no-deps PACKAGE...]
    local listed=() marks=() mark missing=''
    make_environment
    while [ $# -gt 0 ] && [ "$1" != --no-deps ]; do
        listed+=(-r "$1")
        marks+=("$(mark_of "$1")")
        shift
    done
    [ $# -eq 0 ] || marks+=("$(mark_of "$@")")
    for mark in "${marks[@]}"; do [ -e "$mark" ] || missing=yes; done
    [ -n "$missing" ] || return 0
    note "installing ${listed[*]} $* (a minute or two)"
    install "${listed[@]}"
    [ $# -eq 0 ] || install "$@"
    touch "${marks[@]}"
}

set_up "$@"
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}    # idle threads must not compete with the data loaders
