#!/usr/bin/env bash
# Sets everything up and runs the main job. Options go to `grasp-utility demo`, for example --out DIR --device cpu.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_environment
exec grasp-utility demo "$@"
