#!/usr/bin/env bash
# Compare all methods on HAM10000 at 64 px, age and sex at once on one GPU, for at most SECONDS; pack what is there.
#
#   recipes/ham10000/run_compare.sh DATA MODEL OUT SECONDS [STATE]
#
# OUT receives state.tar.gz: run.json files, studies and predictions of both comparisons, no adapters and no pictures.
# Given as STATE to the next call, it goes on where the last one stopped. FLAGS: further flags of `fairtune compare`;
# WORKERS: processes an attribute (3); PYTHON: the interpreter (python).
set -u
data=$1 model=$2 out=$3 seconds=$4 state=${5:-}
python=${PYTHON:-python}
runs=${RUNS:-runs/ham10000-64px}
cd "$(dirname "$0")/../.."
mkdir -p "$runs" "$out"
if [ -n "$state" ] && [ -f "$state" ]; then tar -xzf "$state" -C "$runs"; fi
compare() {
  timeout --signal=TERM --kill-after=20 "$seconds" "$python" -m fairtune_hf.cli.main compare \
    --config recipes/ham10000/compare_64px.yaml --data-root "$data" --model "$model" --sensitive "$1" \
    --out "$runs/$1" --workers "${WORKERS:-3}" ${FLAGS:-} >"$runs/$1.log" 2>&1
  echo "$1: exit code $?"
}
compare age & compare sex &
wait
for attribute in age sex; do
  echo "$attribute: $(ls -d "$runs/$attribute"/methods/*/predictions.parquet 2>/dev/null | wc -l) methods with predictions"
  tail -n 3 "$runs/$attribute.log"
done
tar -czf "$out/state.tar.gz" -C "$runs" --exclude=adapter --exclude=claim --exclude='*.partial' .
ls -l "$out"
