#!/usr/bin/env bash
# What a masking agent sees in every world: scripts/masks.sh RUN_DIR [worlds=clean,video_hard,...] [intensities=0.1,...] [steps=N] [data.video=DIR ...]
# On Atari, in every distraction:          scripts/masks.sh RUN_DIR [distractions=none,video,...] [strength=S] [steps=N] [data.video=DIR]
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.media.masks "$@"
