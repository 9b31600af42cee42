#!/usr/bin/env bash
# Set up if needed, then ruff and the whole test suite. Arguments go to pytest: scripts/test.sh tests/core -k masks
set -euo pipefail
source "$(dirname "$0")/setup.sh"
"$project_python" -m ruff check .
# one process per core, one thread each; tests of one class or module stay together
exec "$project_python" -m pytest -n "${TEST_PROCESSES:-2}" --dist loadscope "$@"
