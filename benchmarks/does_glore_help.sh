#!/usr/bin/env bash
# Does GloRe help? ResNet-50 with and without its units, trained alike from several seeds; finished runs are kept, and after a stop
# the same command goes on. Prints the table of benchmarks/does_glore_help.md last.
# usage: bash benchmarks/does_glore_help.sh [DIR for the runs] [more options of train_model.py]
#   SEEDS=5 : more than 3;  DATASET=motion10 : the easier set;  WIDTH= : the whole networks, for a GPU or hours of a processor
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash test/setup.sh)
data=${DATASET:-relations} width=${WIDTH-_QUARTER}
out=${1:-exps/does_glore_help_$data$width}
[ $# = 0 ] || shift
exec "$python" -m tools.study "$out" --networks "RESNET50_3D$width" "RESNET50_3D_GCN_X5$width" --seeds "${SEEDS:-3}" -- \
  --dataset "$data" --lr-base 0.005 --lr-steps 80%,95% --end-epoch 3 --keep 1 "$@"
