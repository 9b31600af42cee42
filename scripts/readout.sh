#!/usr/bin/env bash
# How much of the simulator's state a linear map reads from the latents of saved encoders: scripts/readout.sh RUN_DIR ...
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.probes.readout "$@"
