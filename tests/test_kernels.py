"""What a session in PyTorch notes of itself: the kernel of its attention, how it was compiled."""

from __future__ import annotations

import pytest
import torch

from compat.build.torch_session import attention_kernels
from compat.runtimes.torch_compile import CompiledSession


class Attention(torch.nn.Module):
    def __init__(self, spelt_out: bool) -> None:
        super().__init__()
        self.spelt_out = spelt_out

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        if self.spelt_out:
            return ((x @ x.transpose(-1, -2)).softmax(-1) @ x,)
        return (torch.nn.functional.scaled_dot_product_attention(x, x, x),)


def test_the_kernel_that_pytorch_chose_is_named() -> None:
    inputs = [torch.randn(1, 2, 16, 8)]
    assert attention_kernels(Attention(False), inputs) == {"flash_attention_for_cpu"}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert attention_kernels(Attention(False), inputs) == {"attention_math"}
    assert attention_kernels(Attention(True), inputs) == set()


@pytest.mark.parametrize(("device", "said"), [("cpu", "without"), ("cuda", "with")])
def test_a_compiled_session_says_whether_graphs_were_recorded(device: str, said: str) -> None:
    noted = CompiledSession({}, {}, {}, torch.device(device)).notes()["compiled"]
    assert noted.endswith(f", {said} CUDA graphs")
