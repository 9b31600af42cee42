#!/usr/bin/env bash
# Set up if needed, then ruff and the whole test suite. Arguments go to pytest: scripts/test.sh tests/core -k masks
set -euo pipefail
source "$(dirname "$0")/setup.sh"
.venv/bin/ruff check .
exec .venv/bin/python -m pytest "$@"
