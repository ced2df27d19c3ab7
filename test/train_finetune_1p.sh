#!/usr/bin/env bash
# Fine-tuning on one device; recommended for your own data. Every option of train_model.py can follow: bash test/train_finetune_1p.sh --batch-size 8
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" finetune_1p 1 "$@"
