#!/usr/bin/env bash
# What only a GPU can tell, in stages of limited time; whatever was reached is kept below $OUT.
#
#   tests/gpu/run.sh            every stage
#   tests/gpu/run.sh --smoke    all of it at the smallest sizes, on any machine, in a few minutes
#
# STAGES   which, default "a b c d": a equality with the CPU, b a training step, c rows, d a search
# OUT      results, default gpu_out          PYTHON   default python3
# A_SECONDS, B_SECONDS, C_SECONDS, D_SECONDS   limits of the stages
# ROWS, EPOCHS, WORKERS, RECIPE   stage c: the backbones, their epochs, how many at a time, the recipe
# DATA     data root with cifar10-jpeg; in the smoke run mini-cifar10 is drawn
# .gpu/    if there: wheels/*.whl that the machine lacks, cifar10-jpeg.tar.xz, and runs/*.tgz, rows that did not end
#          in an earlier run; they go on. Those that do not end in this one are below $OUT/runs.
set -uo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3} out=$(mkdir -p "${OUT:-gpu_out}" && cd "${OUT:-gpu_out}" && pwd)
smoke=""; [ "${1:-}" = "--smoke" ] && smoke="--smoke"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; trap 'exit 143' INT TERM
failed=0
if compgen -G ".gpu/wheels/*.whl" > /dev/null; then
    "$python" -m pip install -q --no-deps --no-index --target "$work/site" .gpu/wheels/*.whl || exit 1
    PYTHONPATH="$PYTHONPATH:$work/site"
fi
processes=""; "$python" -c "import xdist" 2> /dev/null && processes="-n 6"

stage() { # name, seconds, command...
    local name=$1 seconds=$2 begin=$SECONDS; shift 2
    case " ${STAGES:-a b c d} " in *" $name "*) ;; *) return ;; esac
    timeout --kill-after=5 "$seconds" "$@" > "$out/$name.log" 2>&1
    local code=$?
    # The time of a stage may end, by a signal or, where that is ignored, by a kill; equality, and all of the smoke
    # run, has to be seen.
    case "$smoke$code,$name" in 0,* | --smoke0,* | 124,[bcd] | 137,[bcd]) ;; *) failed=1 ;; esac
    echo "stage $name: exit $code after $((SECONDS - begin)) s; $(grep -v '^$' "$out/$name.log" | tail -n 1 | cut -c1-160)"
}

unfinished() { # keep the work folder of every row that has no record
    local run name
    for run in "$work"/runs/*/; do
        name=$(basename "$run")
        compgen -G "$out/board/records/*/$name.json" > /dev/null && continue
        mkdir -p "$out/runs" && tar czf "$out/runs/$name.tgz" -C "$work/runs" "$name"
    done
}

rows() { # the rows of a board; a row that did not end is not recorded
    local dataset=$1 recipe=$2 names=$3 workers=$4 data=$5; shift 5
    "$python" -W ignore -m onebit bench "$dataset" --backbones "$names" --recipe "$recipe" --workers "$workers" \
        --data "$data" --out "$out/board" --work-dir "$work/runs" "$@"
}
export -f rows; export python work out

if [ -n "$smoke" ]; then
    "$python" -W ignore -m onebit data mini "$work/data" --only mini-cifar10 > /dev/null || exit 1
    stage a "${A_SECONDS:-120}" "$python" -m pytest -q -p no:cacheprovider tests/gpu/test_devices.py
    stage b "${B_SECONDS:-180}" "$python" tests/gpu/step.py --smoke --out "$out/step.json"
    stage c "${C_SECONDS:-300}" bash -c 'rows mini-cifar10 mini resnet18_w8_reactnet,resnet20_w8_xnor 2 "$work/data" --cfg-options train_cfg.max_epochs=1'
    stage d "${D_SECONDS:-240}" "$python" -W ignore -m onebit search random --dataset mini-cifar10 --data "$work/data" --preset mini --out "$out/cell.json" \
        --work-dir "$work/search" --cfg-options schedule.epochs=1
else
    data=${DATA:-$work/data}
    if [ -f .gpu/cifar10-jpeg.tar.xz ] && [ ! -d "$data/train" ]; then mkdir -p "$data" && tar xf .gpu/cifar10-jpeg.tar.xz -C "$data"; fi
    export data names=${ROWS:-resnet20,resnet20_xnor,resnet20_bireal,resnet20_reactnet,resnet20_mcn,resnet18_reactnet,dcp_nas_s}
    export workers=${WORKERS:-7} recipe=${RECIPE:-medium}
    export options="--cfg-options cuda_graph=True ${EPOCHS:+train_cfg.max_epochs=$EPOCHS}"
    mkdir -p "$work/runs"; for kept in .gpu/runs/*.tgz; do [ ! -f "$kept" ] || tar xzf "$kept" -C "$work/runs"; done
    stage a "${A_SECONDS:-90}" "$python" -m pytest -q -p no:cacheprovider $processes tests/gpu/test_devices.py
    stage b "${B_SECONDS:-120}" "$python" tests/gpu/step.py --seconds "$((${B_SECONDS:-120} - 30))" --out "$out/step.json"
    stage c "${C_SECONDS:-300}" bash -c 'rows cifar10-jpeg "$recipe" "$names" "$workers" "$data" $options'
    unfinished
    stage d "${D_SECONDS:-120}" "$python" -W ignore -m onebit search dcp-nas --dataset cifar10-jpeg --data "$data" --preset small --out "$out/cell.json" --work-dir "$work/search"
fi
[ -f "$work/search/train.log" ] && cp "$work/search/train.log" "$out/search.log"
[ -f "$out/step.md" ] && cat "$out/step.md"
[ -d "$out/board" ] && echo "records: $(find "$out/board" -name '*--*.json' | wc -l) below $out/board"
exit $failed
