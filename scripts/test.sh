#!/usr/bin/env bash
# Sets everything up and runs tests.
#   test.sh            the quick suite
#   test.sh --all      everything this machine can run: quick, slow, referee, browser, gpu
#   test.sh ARGS...    hands ARGS to pytest
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_environment dev physics viewer cluster
cd "$project"
# Two test processes at once: each keeps to one thread, or they wait for each other's.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ $# -eq 0 ]; then
    exec python -m pytest -q -n 2 -m "not slow and not gpu and not slurm and not browser and not graspnetapi"
elif [ "$1" = --all ]; then
    shift
    bash scripts/install_referee.sh
    exec python -m pytest -q -n 2 --durations=15 "$@"
else
    exec python -m pytest "$@"
fi
