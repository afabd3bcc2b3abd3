#!/usr/bin/env bash
# Train on several ranks of this machine: bash tools/run_distribute_train.sh -n RANKS --config FILE [key=value …]
# DEVICE=Ascend|GPU|CPU says on what (default: the config's), PYTHON names the interpreter (default: .venv's, or python).
# On several machines start it on each, with NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT; --check starts nothing.
root=$(cd "$(dirname "$0")/.." && pwd)
[ -x "$root/.venv/bin/python" ] && default=$root/.venv/bin/python || default=python
exec "${PYTHON:-$default}" -m mindspore_gpt4image.launch "$@"
