#!/usr/bin/env bash
# Starts a recipe: test/launch.sh RECIPE PROCESSES [any option of train_model.py ...]
# One machine: NPROC=N processes instead. Several: NNODES with NODE_RANK, MASTER_ADDR and MASTER_PORT, or with RDZV_ENDPOINT and
# MAX_RESTARTS; under SLURM srun's own variables. docs/MULTI_NODE.md has examples. LAUNCH_PRINT=1 only prints what would run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
recipe=$1 default=$2
shift 2
export TORCH_DEVICE_BACKEND_AUTOLOAD=${TORCH_DEVICE_BACKEND_AUTOLOAD:-0} # train/device.py loads torch_npu, and says why not
python=$(bash test/setup.sh)
nproc='' nodes='' launcher=()
plan=$("$python" -m train.launch "$default" "$@")
eval "$plan"
command=(train_model.py --recipe "$recipe" --no-distributed "$@")
[ ${#launcher[@]} = 0 ] || command=("${launcher[@]}" train_model.py --recipe "$recipe" --distributed "$@")
if [ -n "${LAUNCH_PRINT:-}" ]; then
  grep '^export' <<<"$plan" || true
  printf '%q ' "$python" "${command[@]}" && echo
  exit
fi
# shellcheck source=test/env_npu.sh
. test/env_npu.sh
"$python" -m train.processes "$nproc" "${NPROC:+given}" "$recipe" "$@"
# shellcheck source=test/env_memory.sh
. test/env_memory.sh
if [ ${#launcher[@]} -gt 0 ]; then
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$("$python" -c "import os; print(max(1, (os.cpu_count() or 1) // $nproc))")}
  "$python" train_model.py --recipe "$recipe" --distributed --dry-run "$@" # one process says once what is missing
  [ "$nodes" = 1 ] || echo "this machine starts $nproc of $((nodes * nproc)) processes on $nodes machines"
fi
exec "$python" "${command[@]}"
