#!/usr/bin/env bash
# All that needs a GPU, in one command of nine minutes: build, tests, sanitizers, benchmarks, trainings.
#
#     benchmarks/gpu.sh                     # into results/gpu: a log a part, gpu.csv, gpu.md
#     benchmarks/gpu.sh FOLDER              # into another folder
#     DEVICE=cpu benchmarks/gpu.sh FOLDER   # the same parts, tiny, where there is no GPU
#
# PYTHON: an interpreter with torch for CUDA, pytest and what requirements.txt names (python3). Most important parts come
# first; each has a time limit, and a part that fails does not stop those after it. After LIMIT seconds (540) no further
# part begins. CIFAR-10 and CIFAR-100 are used where data/ has them, else photographs and digits of scikit-learn.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-results/gpu}" && cd "${1:-results/gpu}" && pwd)
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export MASKBENCH_CUDA=$([ "$device" = cuda ] && echo 1 || echo 0)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} # of those that measure; the tests have a core each

public=photos private=digits
if [ "$device" = cpu ]; then # with the kernels that are there
    tests="--collect-only"   # there are such tests: make test runs them
    tiny="--limit 256 --epochs 1" instances="--images 256 --turns 1 --counts 1"
    export TORCHDYNAMO_DISABLE=1 # peers that are compiled take a minute to be so
    ops="--batches 16 --seconds 0.2" steps="--batches 16 --seconds 1" loop=1 masks=100 slow=3
else
    [ -d data/cifar-10-batches-py ] && public=cifar10
    [ -d data/cifar-100-python ] && private=cifar100
    tests="" tiny="" instances="--images 20000 --turns 1"
    ops="--batches 16 128 4096 65536 1048576 --seconds 1" steps="--seconds 10" loop=10 masks="10000 60000" slow=1
fi

echo "part,seconds,exit_status" > "$out/gpu.csv"
part() { # NAME LIMIT COMMAND...
    local name=$1 limit=$(($2 * slow)) start=$SECONDS status=0
    shift 2
    [ $start -lt "${LIMIT:-$((540 * slow))}" ] || { echo "$name,0,not begun" >> "$out/gpu.csv" && return; }
    echo "== $name"
    timeout --kill-after=5 "$limit" "$@" > "$out/$name.log" 2>&1 || status=$?
    echo "$name,$((SECONDS - start)),$status" >> "$out/gpu.csv"
    [ $status = 0 ] || { echo "   exit status $status (124: over $limit s)" && tail -n 3 "$out/$name.log" | cut -c1-300; }
}
kernels="tests/test_ops.py tests/test_sample_prior.py tests/test_sample_prior_statistics.py tests/test_bce.py"
sanitize="compute-sanitizer --error-exitcode 9 --target-processes all"
train="$python train_aae.py --dataset $public --device $device --output-dir $work"

[ "$device" = cpu ] || part build 240 $python setup.py build_ext --inplace
part kernels 20 $python -m maskbench.ops
part parity 90 env OMP_NUM_THREADS=1 $python -m pytest -q $tests $kernels -k "$device"
part captured 60 env OMP_NUM_THREADS=1 $python -m pytest -q $tests tests/test_training.py tests/test_views.py
if [ "$device" = cuda ]; then
    part memcheck 60 $sanitize --tool memcheck $python -m pytest -q $kernels -k "cuda and not more_than_2_to_31"
    part racecheck 60 $sanitize --tool racecheck $python -m pytest -q tests/test_bce.py -k cuda
fi
part ops 60 $python benchmarks/ops.py --device $device $ops
part agreement 40 $python benchmarks/agreement.py --device $device --seconds $loop
part train_step 60 $python benchmarks/train_step.py --device $device $steps
part paper 90 $train/paper --preset paper $tiny
part invariant 180 $train/invariant --preset invariant $tiny
part instances 60 $python benchmarks/instances.py --device $device $instances
part mask 60 $python mask_dataset.py --dataset $private --encoder "$work/invariant/0/encoder.pt" \
    --output "$work/masked.pt" --device $device
part masking 60 $python benchmarks/mask.py --device $device --images $masks --seconds $loop
if [ "$device" = cuda ]; then
    part nccl 60 $python -m torch.distributed.run --standalone --nproc-per-node 1 train_aae.py --dataset photos \
        --limit 2000 --epochs 1 --preset invariant --output-dir "$work/nccl"
fi

for preset in invariant paper; do
    cp "$work/$preset/0/metrics.csv" "$out/$preset.csv" 2> /dev/null
done
{
    echo "# On a GPU" && echo
    echo "\`benchmarks/gpu.sh\`, $($python -c 'import sys
sys.path.insert(0, "benchmarks")
import common, torch
print("; ".join(line[2:] for line in common.header(torch.device(sys.argv[1]))))' "$device")" && echo
    echo "| part | seconds | exit status |" && echo "|---|---:|---:|"
    tail -n +2 "$out/gpu.csv" | sed 's/,/ | /g; s/.*/| & |/'
    for name in ops agreement train_step masking instances; do
        [ -f "$out/$name.log" ] && echo && echo "## $name" && echo && sed 's/^## /### /' "$out/$name.log"
    done
} > "$out/gpu.md"
! grep -qv ',0$' <(tail -n +2 "$out/gpu.csv")
