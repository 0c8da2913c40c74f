"""The meanings of the marks of cases, as the site's methods and the glossary give them."""

from __future__ import annotations

from collections.abc import Mapping

MARKS: Mapping[str, Mapping[str, str]] = {
    "hardware": {
        "cpu": "the host's processor, by its general runtimes",
        "cuda": "NVIDIA GPUs",
        "rocm": "AMD GPUs",
        "mps": "Apple GPUs by Metal",
        "coreml": "Apple's Core ML, or conversion for it",
        "openvino": "Intel's OpenVINO: CPU, GPU or NPU",
        "qualcomm": "Qualcomm's NPU, or its emulator",
        "webnn": "a browser's WebNN",
        "webgpu": "a browser's WebGPU",
    },
    "precision": {
        "fp32": "32-bit floating point",
        "tf32": "32-bit storage, products with 10 bits of mantissa",
        "fp16": "IEEE half precision",
        "bf16": "8 bits of exponent, 7 of mantissa",
        "int8": "8-bit integers, in weights or in weights and activations",
        "int4": "4-bit integers",
        "nf4": "4-bit values spaced as a normal distribution",
    },
    "weights": {
        "pretrained": "a published checkpoint",
        "trained": "a small checkpoint that this project trained",
        "seeded": "the published architecture at full size, with generated weights: it can refute "
        "accuracy, never prove it",
    },
    "evidence": {
        "device": "real silicon, timed",
        "emulator": "support and accuracy, never speed",
        "conversion": "converted and executed apart from its hardware: support and accuracy",
    },
}
"""Maps each group of marks to its marks with their meanings; a case has one mark of each group."""
