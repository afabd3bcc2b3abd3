#!/usr/bin/env bash
# GPT4Image once, end to end, on emoji: pictures and descriptions, embeddings, three arms of training, test, export, report.
# Usage: bash tools/quickstart.sh [--epochs N] [--seeds N]     (PYTHON and VENV: see tools/environment.sh)
# Stopped and started again, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh

EPOCHS=30 SEEDS=3 FIRST_SEED=100
while [ $# -gt 0 ]; do
    case $1 in
        --epochs) EPOCHS=${2:-} ;;
        --seeds) SEEDS=${2:-} ;;
        *) echo "usage: bash tools/quickstart.sh [--epochs N] [--seeds N]" >&2; exit 2 ;;
    esac
    [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || { echo "error: $1 takes a whole number above 0" >&2; exit 2; }
    shift 2
done

set_up_environment quickstart
DATA=data/emoji OUT=outputs/quickstart
TEXTS=$DATA/short.mindrecord
LAST_SEED=$((FIRST_SEED + SEEDS - 1))
ARMS="baseline aligned control"

echo "== 1/6 pictures and descriptions"
"$PY" tools/prepare.py emoji --output $DATA

echo "== 2/6 descriptions to embeddings"
"$PY" tools/encode.py --descriptions $DATA/descriptions.jsonl --text short --encoder all-MiniLM-L6-v2 --output $TEXTS

# Each number of epochs has folders of its own, so that a short try and the whole do not get into each other's way.
run_of() { echo $OUT/$EPOCHS-epochs/$1/seed$2; }
# A tenth of the training is warm-up.
WARMUP=$("$PY" -c "print($EPOCHS / 10)")
SEED_LIST=$(seq $FIRST_SEED $LAST_SEED)
echo "== 3/6 training: baseline, aligned and control (texts dealt to the wrong images), $SEEDS seeds, $EPOCHS epochs"
for seed in $SEED_LIST; do
    for arm in $ARMS; do
        "$PY" tools/train.py --config configs/emoji/$arm.yaml output=$(run_of $arm $seed) seed=$seed \
            epochs=$EPOCHS schedule.warmup_epochs=$WARMUP
    done
done

echo "== 4/6 evaluation on the test split, on which nothing was chosen"
RUNS=()
for seed in $SEED_LIST; do
    for arm in $ARMS; do
        run=$(run_of $arm $seed)
        RUNS+=($run)
        [ $run/eval-test.json -nt $run/last.ckpt ] && continue
        embeddings=()
        [ $arm = baseline ] || embeddings=(--embeddings $TEXTS)
        "$PY" tools/eval.py --checkpoint $run --split test "${embeddings[@]}" --json $run/eval-test.json
    done
done

echo "== 5/6 export of the aligned classifier"
"$PY" tools/export.py --checkpoint $(run_of aligned $FIRST_SEED) --output $OUT/export/emoji-aligned.mindir

echo "== 6/6 report"
"$PY" -m mindspore_gpt4image.report.quickstart $OUT --data $DATA --runs "${RUNS[@]}"
