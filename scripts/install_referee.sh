#!/usr/bin/env bash
# Install graspnetAPI 1.2.11, the referee of our scores, into the active Python environment (or the one named by $PYTHON).
#
#   bash scripts/install_referee.sh
#
# It is an optional extra: only `scorers: [graspnetapi]` and the tests marked `graspnetapi` need it.
# Licence: graspnetAPI is MIT, but the dex-net part inside it (graspnetAPI/utils/dexnet) is UC Berkeley's and free for
# research and education only. Nothing of it is part of this project.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-}"
if [[ -z "$python" ]]; then
    if [[ -n "${VIRTUAL_ENV:-}" ]]; then python="$VIRTUAL_ENV/bin/python"
    elif [[ -x "$here/.venv/bin/python" ]]; then python="$here/.venv/bin/python"
    else python="python3"; fi
fi

if ! command -v g++ >/dev/null; then
    echo "install_referee: grasp_nms is compiled from source and needs g++: apt-get install g++ (or your system's C++ compiler)" >&2
    exit 1
fi
if ! "$python" -c 'import sysconfig, pathlib, sys; sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").is_file())'; then
    echo "install_referee: grasp_nms is compiled from source and needs Python's headers: apt-get install python3-dev" >&2
    exit 1
fi

echo "install_referee: graspnetAPI's part utils/dexnet is licensed for research and education only."

# The ordinary packages are listed once, as the extra `referee` of pyproject.toml.
"$python" - "$here/pyproject.toml" <<'PY' | xargs -d '\n' "$python" -m pip install -q -c "$here/constraints.txt"
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print("\n".join(tomllib.load(file)["project"]["optional-dependencies"]["referee"]))
PY
# These three pin versions of numpy and transforms3d that no current Python can install: take them without their pins.
"$python" -m pip install -q --no-deps "graspnetAPI==1.2.11" "autolab_core==1.1.1" "grasp_nms==1.0.2"

"$python" -c 'import graspnetAPI, grasp_nms' || {
    echo "install_referee: installed, but it cannot be imported (see above)" >&2
    exit 1
}
echo "install_referee: graspnetAPI 1.2.11 is ready. (\`pip check\` complains of its pins; that is expected.)"
