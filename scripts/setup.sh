# Sourced by the other scripts: goes to the checkout's root and makes .venv with what the files $REQUIREMENTS list.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
say() { printf '%s\n' "$*" >&2; }

python=$(command -v python3.11 || command -v python3) || { say "error: no python3: install Python 3.11"; exit 2; }
if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { say "error: $python is $("$python" -V): Python 3.11 or later is needed"; exit 2; }
    say "making .venv"
    "$python" -m venv .venv || { say "error: $python cannot make a virtual environment: on Debian, apt install python3-venv"; exit 2; }
fi
wanted=$(cat $REQUIREMENTS | .venv/bin/python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])')
if [ ! -e ".venv/installed-$wanted" ]; then
    say "installing $REQUIREMENTS (a minute or two)"
    for file in $REQUIREMENTS; do
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$file" ||
            { say "error: could not install $file: is the package registry within reach?"; exit 2; }
    done
    [ -z "${NO_DEPENDENCIES:-}" ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $NO_DEPENDENCIES ||
        { say "error: could not install $NO_DEPENDENCIES"; exit 2; }
    touch ".venv/installed-$wanted"
fi
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}       # idle threads must not spin beside the loaders on a small machine
