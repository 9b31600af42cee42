#!/usr/bin/env bash
# What a world model believes: scripts/dreams.sh RUN_DIR [steps=45] [context=5] [starts=3] [figure=FILE.png]
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.media.dreams "$@"
