#!/usr/bin/env bash
# Accuracy run on one device: 90 epochs. Every option of train_model.py can follow: bash test/train_full_1p.sh --batch-size 8
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" full_1p 1 "$@"
