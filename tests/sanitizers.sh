#!/bin/sh
# The C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer: builds them in a temporary folder and runs
# the tests of the ops there. Any report ends the run with an error.
#
#     tests/sanitizers.sh        # PYTHON=... chooses the interpreter
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

. "$root/tests/copy_sources.sh"  # at -O1 less is optimised away before it is looked at
cp -R "$root/tests" "$root/classify.py" .
flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"
MASKBENCH_CUDA=0 CFLAGS="$flags" CXXFLAGS="$flags" LDFLAGS="$flags" "$python" setup.py --quiet build_ext --inplace

# Python and torch are not instrumented: their leaks are not looked at, and torch.compile would build with neither
compiler=${CXX:-c++}
export LD_PRELOAD="$($compiler -print-file-name=libasan.so) $($compiler -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
"$python" -c 'from maskbench import ops; assert ops.backend("cpu") == "cpu"'
"$python" -m pytest -k "not one_graph" tests/test_ops.py tests/test_sample_prior.py tests/test_bce.py tests/test_mlp.py \
    tests/test_convolutions.py tests/test_adam_step.py tests/test_train_mlps.py
echo "sanitizers: no report"
