#!/usr/bin/env bash
# Speed of an update, part by part: scripts/bench.sh [tree=dmcontrol|atari] [preset=...] [precision=...] [updates=N] [--json FILE] [key=value ...]
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.bench.bench "$@"
