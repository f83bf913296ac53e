#!/bin/sh
# Compile, link and import the CUDA kernels, no GPU needed: a virtual environment of its own with the CUDA build of
# torch, a copy of the tree, MASKBENCH_CUDA=1. A warning of nvcc is an error. Skipped without nvcc or without room for
# 15 GB. What registers and memory the kernels take, tests/test_device_code.py checks.
#
#     tests/build_cuda.sh [ENVIRONMENT]        # an existing environment with torch for CUDA is used as it is
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
command -v nvcc > /dev/null || { echo "skipped: tests/build_cuda.sh, no nvcc on PATH"; exit 0; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
environment=${1:-$work/venv}
if [ ! -d "$environment" ]; then
    free=$(df -Pk "$work" | awk 'NR == 2 { print int($4 / 1048576) }')
    [ "$free" -ge 15 ] || { echo "skipped: tests/build_cuda.sh, $free GB free of the 15 needed in $work"; exit 0; }
    python3 -m venv "$environment"
    # the package index's own build has CUDA, whatever pip is told elsewhere to prefer
    PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= "$environment/bin/pip" install --quiet --no-compile torch==2.13.0 setuptools numpy
fi
python=$(cd "$environment" && pwd)/bin/python

. "$root/tests/copy_sources.sh"
export NVCC_APPEND_FLAGS="-Werror all-warnings"
MASKBENCH_CUDA=1 "$python" setup.py --quiet build_ext --inplace
"$python" -m maskbench.ops
"$python" -c 'from maskbench import ops; assert ops.backend("cuda") == "cuda" and ops.backend("cpu") == "cpu"'
echo "build_cuda: compiled, linked and imported"
