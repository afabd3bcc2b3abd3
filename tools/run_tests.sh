#!/usr/bin/env bash
# Set up an environment and run the tests. Arguments go to pytest: bash tools/run_tests.sh -m "not slow"
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh
set_up_environment test
echo "== lint"
"$PY" -m ruff check .
"$PY" -m ruff format --check .
echo "== tests"
# Most of them compile small graphs on one core: two files at a time.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$PY" -m pytest -q -n 2 --dist loadfile tests "$@"
