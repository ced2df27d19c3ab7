#!/usr/bin/env bash
# The test command: style, types, shell scripts, then pytest. Arguments go to pytest: bash test/run_tests.sh -k schedule
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash test/setup.sh --dev)
has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)"; }
scripts=(test/*.sh benchmarks/*.sh .ci/run)
if has ruff; then "$python" -m ruff check .; else echo "ruff is not installed: style not checked" >&2; fi
if has mypy; then "$python" -m mypy; else echo "mypy is not installed: types not checked" >&2; fi
shellcheck=$(dirname "$python")/shellcheck
command -v "$shellcheck" >/dev/null || shellcheck=$(command -v shellcheck || true)
if [ -n "$shellcheck" ]; then "$shellcheck" -x "${scripts[@]}"; else echo "shellcheck is not installed: scripts not checked" >&2; fi
parallel=()
if has xdist; then # a file's tests stay together; each process computes on one core
  parallel=(-n "$("$python" -c 'import os; print(min(4, os.cpu_count() or 1))')" --dist loadfile)
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
exec "$python" -m pytest test/unit ${parallel[@]+"${parallel[@]}"} "$@"
