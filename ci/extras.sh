#!/bin/sh
# Install subsets of the extras, each into an environment of its own, and run what it brings:
# sh ci/extras.sh FOLDER [EXTRAS ...]
set -eu

folder=$1
shift
[ $# -gt 0 ] || set -- torch torch,onnxruntime cpu,openvino,torchao,bitsandbytes
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
for extras in "$@"; do
    venv=$folder/$(echo "$extras" | tr , -)
    sh ci/bootstrap.sh "$venv" "$extras"
    echo "== $extras: $(du -shL "$venv" | cut -f1)"
    "$venv/bin/compat" doctor
    # What is absent is skipped, with its reason; what is broken fails.
    "$venv/bin/pytest" suites --quick --models whisper-nano --recipes fp32 -k loads \
        --targets cpu,openvino-cpu --results "$folder/results"
done
