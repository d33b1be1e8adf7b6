# Sourced by demo.sh and test.sh: an environment with the project in it, and the system libraries it needs.
# Uses the active virtual environment; without one, makes and uses .venv beside this folder.
# Call: setup_environment [EXTRA...]   (extras of pyproject.toml, for example dev)

project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# What open3d loads at run time, and the Debian package that has it.
system_libraries=(
    "libusb-1.0.so.0 libusb-1.0-0"
    "libGL.so.1 libgl1"
    "libEGL.so.1 libegl1"
    "libX11.so.6 libx11-6"
    "libgomp.so.1 libgomp1"
)

fail() {
    echo "$*" >&2
    exit 1
}

has_library() {
    { ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null; } | grep -F "$1" >/dev/null # not -q: a closed pipe would fail under pipefail
}

setup_system_libraries() {
    [ "$(uname -s)" = Linux ] || return 0
    local missing=() entry
    for entry in "${system_libraries[@]}"; do
        has_library "${entry% *}" || missing+=("${entry#* }")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "installing the system libraries that open3d needs: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
            fail "could not install ${missing[*]}; install them by hand and run this again"
    else
        fail "open3d needs system libraries that are missing here: sudo apt-get install ${missing[*]}"
    fi
}

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed, and none was found on PATH"
}

setup_environment() {
    setup_system_libraries
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        if [ ! -x "$project/.venv/bin/python" ]; then
            local interpreter
            interpreter="$(find_python)" || exit 1
            echo "making a virtual environment in $project/.venv"
            "$interpreter" -m venv "$project/.venv" || fail "$interpreter -m venv failed (Debian: apt-get install python3-venv)"
        fi
        # shellcheck disable=SC1091
        source "$project/.venv/bin/activate"
    fi
    local extras="" wanted stamp
    [ $# -eq 0 ] || extras="[$(IFS=,; echo "$*")]"
    stamp="$VIRTUAL_ENV/.grasp-utility-setup"
    wanted="$project $extras $(cat "$project/pyproject.toml" "$project/constraints.txt" | cksum)"
    if ! grep -qxF "$wanted" "$stamp" 2>/dev/null; then
        echo "installing grasp-utility$extras (once; torch and open3d are large)"
        # torch first and by its exact version: an open range may fetch another build with gigabytes of CUDA libraries.
        python -m pip install -q --disable-pip-version-check "$(grep -i '^torch==' "$project/constraints.txt")" &&
            python -m pip install -q --disable-pip-version-check -c "$project/constraints.txt" -e "$project$extras" ||
            fail "the installation failed; see the messages above"
        echo "$wanted" >>"$stamp"
    fi
}
