#!/usr/bin/env bash
# What MLR's decoder learns from a saved encoder that is frozen: scripts/decoder.sh RUN_DIR [updates=600] [key=value ...]
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.probes.decoder "$@"
