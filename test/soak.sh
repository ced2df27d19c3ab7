#!/usr/bin/env bash
# Long fault tests of a training run: bash test/soak.sh [--kills 20] [--saves 50] [--flips 100] [TEST ...]
# Ends with a line for each test, `NAME … pass|fail`; exit code 0 where none failed. As root it also makes disks of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash test/setup.sh --dev)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TORCH_DEVICE_BACKEND_AUTOLOAD=${TORCH_DEVICE_BACKEND_AUTOLOAD:-0}
export PYTHONPATH=.:test/unit
exec "$python" test/soak.py "$@"
