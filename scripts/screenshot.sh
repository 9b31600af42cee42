#!/usr/bin/env bash
# figs/tensorboard.png: TensorBoard's Custom Scalars, HParams and Images tabs on short runs of preset debug, as headless Chromium draws them.
#   scripts/screenshot.sh [--runs DIR]     needs Chromium: apt-get install chromium
set -euo pipefail
source "$(dirname "$0")/setup.sh"
exec "$project_python" -m scripts.media.screenshot "$@"
