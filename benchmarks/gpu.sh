#!/usr/bin/env bash
# All that needs a GPU, in one command of nine minutes: build, tests, benchmarks, trainings, sanitizers.
#
#     benchmarks/gpu.sh                     # into results/gpu: a log a part, gpu.csv, gpu.md
#     benchmarks/gpu.sh FOLDER              # into another folder
#     PARTS="nccl masking" benchmarks/gpu.sh FOLDER   # these parts alone
#     DEVICE=cpu benchmarks/gpu.sh FOLDER   # the same parts, tiny, where there is no GPU
#
# PYTHON: an interpreter with torch for CUDA, pytest and what requirements.txt names (python3). Most important parts come
# first; each has a time limit, and no more than what is left of LIMIT seconds (530), which do not hold all of them: PARTS
# names those that were not begun. A part that fails or is ended does not stop those after it, and gpu.md is written anew
# after each. CIFAR-10 and CIFAR-100 are used where data/ has them, else photographs, of which there are half as many and
# which are seen twice as often, and digits.
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

public=photos private=digits times=2
if [ "$device" = cpu ]; then # with the kernels that are there
    tests="--collect-only -v" # there are such tests: make test runs them
    tiny="--limit 256 --epochs 1" instances="--images 256 --turns 1 --counts 1"
    export TORCHDYNAMO_DISABLE=1 # peers that are compiled take a minute to be so
    ops="--batches 16 --seconds 0.2" steps="--batches 16 --seconds 1" loop=1 masks=100 slow=3
else
    [ -d data/cifar-10-batches-py ] && public=cifar10 times=1
    [ -d data/cifar-100-python ] && private=cifar100
    tests="" tiny="" instances="--images 20000 --turns 1 --counts 4"
    ops="--batches 16 1048576 --seconds 1" steps="--batches 16 --seconds 10" loop=10 masks="10000 60000" slow=1
fi
budget=${LIMIT:-$((530 * slow))}
header=$($python -c 'import sys
sys.path.insert(0, "benchmarks")
import common, torch
print("; ".join(line[2:] for line in common.header(torch.device(sys.argv[1]))))' "$device")

echo "part,seconds,exit_status" > "$out/gpu.csv"
part() { # NAME LIMIT COMMAND...
    local name=$1 limit=$(($2 * slow)) start=$SECONDS status=0
    [[ -z ${PARTS:-} || " $PARTS " == *" $name "* ]] || return 0
    shift 2
    [ "$limit" -le $((budget - start)) ] || limit=$((budget - start))
    if [ "$limit" -gt 0 ]; then
        echo "== $name"
        timeout --kill-after=5 "$limit" "$@" > "$out/$name.log" 2>&1 || status=$?
        [ $status = 0 ] || { echo "   exit status $status (124: over $limit s)" && tail -n 3 "$out/$name.log" | cut -c1-300; }
    else
        status="not begun"
    fi
    echo "$name,$((SECONDS - start)),$status" >> "$out/gpu.csv"
    report > "$work/gpu.md" && mv "$work/gpu.md" "$out/gpu.md"
}
report() {
    echo "# On a GPU" && echo
    echo "\`benchmarks/gpu.sh\`, $header. Trained on $public, masked: $private." && echo
    echo "| part | seconds | exit status |" && echo "|---|---:|---:|"
    tail -n +2 "$out/gpu.csv" | sed 's/,/ | /g; s/.*/| & |/'
    for name in ops train_step agreement instances masking; do
        [ -f "$out/$name.log" ] && echo && echo "## $name" && echo && sed 's/^## /### /' "$out/$name.log"
    done
    for preset in paper invariant; do # epochs that are done, also of a training that was ended
        cp "$work/$preset/0/metrics.csv" "$out/$preset.csv" 2> /dev/null
    done
    return 0
}
kernels="tests/test_ops.py tests/test_sample_prior.py tests/test_sample_prior_statistics.py tests/test_bce.py"
messages="says_what or say_what or direct_calls" # where a C++ compiler links libstdc++ statically, they once crashed
few="all_64_bits or ln_1 or 383-41 or not_a_number or loss_and_gradient" # a sanitizer is slow
pytest="env OMP_NUM_THREADS=1 $python -m pytest -q $tests"
memcheck="" racecheck=""
if [ "$device" = cuda ]; then
    sanitize="compute-sanitizer --error-exitcode 9 --target-processes all"
    memcheck="$sanitize --tool memcheck" racecheck="$sanitize --tool racecheck"
fi
train="$python train_aae.py --dataset $public --device $device --output-dir $work"

[ "$device" = cpu ] || part build 240 $python setup.py build_ext --inplace
# where they are missing, the tests of parity would compare the reference with itself, and pass
part kernels 20 $python -c "
import maskbench.ops.__main__ as ops
ops.main()
assert ops.backend('$device') == '$device'"
part parity 90 $pytest $kernels -k "$device and not ($messages)"
part captured 60 $pytest tests/test_training.py -k captured
part ops 60 $python benchmarks/ops.py --device $device $ops
part train_step 60 $python benchmarks/train_step.py --device $device $steps
part invariant 180 $train/invariant --preset invariant --epochs $((36 * times)) $tiny
part mask 60 $python mask_dataset.py --dataset $private --encoder "$work/invariant/0/encoder.pt" \
    --output "$work/masked.pt" --device $device
part paper 75 $train/paper --preset paper --epochs $((50 * times)) $tiny
if [ "$device" = cuda ]; then
    part nccl 40 $python -m torch.distributed.run --standalone --nproc-per-node 1 train_aae.py --dataset photos \
        --limit 2000 --epochs 1 --preset invariant --device cuda --output-dir "$work/nccl"
fi
part agreement 40 $python benchmarks/agreement.py --device $device --seconds $loop
# every tensor has memory of its own: in torch's pool one that is overrun would end in the next
part memcheck 60 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 $memcheck \
    $pytest tests/test_sample_prior.py tests/test_bce.py -k "$device and ($few)"
part racecheck 60 $racecheck $pytest tests/test_bce.py -k "$device and ($few)"
part instances 90 $python benchmarks/instances.py --device $device $instances
part masking 75 $python benchmarks/mask.py --device $device --images $masks --seconds $loop
part messages 20 $pytest $kernels -k "$device and ($messages)"
if [ "$device" = cpu ]; then # each name of a selection is still that of a test
    part names 5 bash -c 'for name; do echo "$name" && grep -q "$name" "$0"/{memcheck,messages}.log || exit 1; done' \
        "$out" ${few// or / } ${messages// or / }
fi

! grep -qv ',0$' <(tail -n +2 "$out/gpu.csv")
