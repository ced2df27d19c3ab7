#!/usr/bin/env bash
# Starts a recipe: test/launch.sh RECIPE PROCESSES [any option of train_model.py ...]
# NPROC=N overrides the number of processes; MASTER_PORT the port that they meet at.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
recipe=$1 default=$2
shift 2
# shellcheck source=test/env_npu.sh
. test/env_npu.sh
export TORCH_DEVICE_BACKEND_AUTOLOAD=${TORCH_DEVICE_BACKEND_AUTOLOAD:-0} # train/device.py loads torch_npu, and says why not
python=$(bash test/setup.sh)
nproc=${NPROC:-$default}
"$python" -m train.processes "$nproc" "${NPROC:+given}" "$recipe" "$@"
# shellcheck source=test/env_memory.sh
. test/env_memory.sh
if [ "$nproc" = 1 ]; then
  exec "$python" train_model.py --recipe "$recipe" --no-distributed "$@"
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$("$python" -c "import os; print(max(1, (os.cpu_count() or 1) // $nproc))")}
"$python" train_model.py --recipe "$recipe" --distributed --dry-run "$@" # one process says once what is missing
port=${MASTER_PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
if "$python" -c 'import torch.distributed.run' 2>/dev/null; then
  exec "$python" -m torch.distributed.run --nnodes 1 --nproc_per_node "$nproc" --master_addr 127.0.0.1 --master_port "$port" \
    train_model.py --recipe "$recipe" --distributed "$@"
fi
exec "$python" -m torch.distributed.launch --use_env --nproc_per_node "$nproc" --master_addr 127.0.0.1 --master_port "$port" \
  train_model.py --recipe "$recipe" --distributed "$@"
