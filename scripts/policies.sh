#!/usr/bin/env bash
# Small animations of finished runs for README, under 1 MB each: scripts/policies.sh RUN_DIR ...
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.media.policies "$@"
