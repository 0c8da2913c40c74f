#!/bin/sh
# Make a virtual environment with the pinned dependencies: sh ci/bootstrap.sh FOLDER [EXTRAS]
set -eu

venv=${1:-.venv}
python=
for candidate in python3.11 python3.12 python3.13 python3 python; do
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "No Python 3.11, 3.12 or 3.13 was found. Install one, then run make again:" >&2
    echo "  Debian, Ubuntu: apt install python3 python3-venv    macOS: brew install python@3.12" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "$python cannot make virtual environments: install its venv module (python3-venv)." >&2
    exit 1
fi
if [ ! -x "$venv/bin/python" ]; then
    echo "Making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi

extras=${2:-test}
gpu=
if command -v nvidia-smi >/dev/null 2>&1; then
    gpu=yes
fi
constraints=$(dirname "$0")/constraints.txt
echo "Installing pinned dependencies (several minutes the first time)"
set -- "$venv/bin/python" -m pip install --quiet --disable-pip-version-check
if [ "$(uname -s)" = Linux ] && [ -z "${COMPAT_TORCH:-}" ] && [ -z "$gpu" ]; then
    # Without a GPU the CPU-only build of PyTorch spares gigabytes. It is preferred if an index
    # offers it, and the ordinary build is taken if none does.
    "$@" -c "$constraints" "torch==2.13.0+cpu" 2>/dev/null ||
        "$@" -c "$constraints" --extra-index-url "${COMPAT_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" "torch==2.13.0+cpu" 2>/dev/null ||
        echo "The CPU-only build of PyTorch is not to be had; taking the ordinary one." >&2
fi
"$@" -c "$constraints" -e ".[$extras]"
if [ -n "$gpu" ] && [ "$extras" = test ]; then
    # onnxruntime and onnxruntime-gpu overwrite one another; the latter runs on the CPU as well.
    "$@" --force-reinstall --no-deps "onnxruntime-gpu==1.31.1" ||
        echo "onnxruntime-gpu is not to be had; ONNX Runtime stays without CUDA." >&2
fi
# Without them the cases on published weights are skipped.
"$venv/bin/python" -m compat fetch --all ||
    echo "Published weights are missing; \`compat fetch --all\` tries again." >&2
