"""WeSpeaker ResNet34 in plain PyTorch, with the parameter names of pyannote.audio's checkpoint.

Source: Wang et al., "Wespeaker: A research and production oriented speaker embedding learning
toolkit", ICASSP 2023, as wrapped by pyannote.audio 3.1 (``WeSpeakerResNet34``).
"""

from __future__ import annotations

import torch
from torch import nn

from compat.inputs import kaldi

CHANNELS = 32
BLOCKS = (3, 4, 6, 3)
"""Blocks of each stage; all stages but the first halve bands and frames and double the channels."""
LEAST = 1e-6
"""Smallest divisor in the statistics, which keeps empty masks from giving NaN."""


class WeSpeakerResNet34(nn.Module):
    """The published architecture, as initialised by torch.

    Its ``forward`` maps fbank (batch, 998, 80) and masks (batch, 3, 589) to embeddings
    (batch, 3, width).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnet = ResNet(width)

    def forward(self, features: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.resnet(features, masks),)


class ResNet(nn.Module):
    """ResNet34 over mel features (batch, frames, mels): an embedding for each mask of frames."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [CHANNELS * 2**index for index in range(len(BLOCKS))]
        self.conv1 = nn.Conv2d(1, CHANNELS, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(CHANNELS)
        self.layer1 = stage(CHANNELS, widths[0], BLOCKS[0], 1)
        self.layer2 = stage(widths[0], widths[1], BLOCKS[1], 2)
        self.layer3 = stage(widths[1], widths[2], BLOCKS[2], 2)
        self.layer4 = stage(widths[2], widths[3], BLOCKS[3], 2)
        self.seg_1 = nn.Linear(2 * widths[3] * kaldi.MELS // 8, width)

    def forward(self, features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        # An image of one channel, with mel bands as height and time as width.
        hidden = self.bn1(self.conv1(features.transpose(1, 2).unsqueeze(1))).relu()
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            hidden = layer(hidden)
        embeddings: torch.Tensor = self.seg_1(statistics(hidden.flatten(1, 2), masks))
        return embeddings


def stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    """Return the blocks of one stage; the first block changes size and channels."""
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


class BasicBlock(nn.Module):
    """Two convolutions with a shortcut; if they change size or channels, the shortcut does too."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        hidden = self.bn1(self.conv1(values)).relu()
        total: torch.Tensor = self.bn2(self.conv2(hidden)) + self.shortcut(values)
        return total.relu()


def statistics(frames: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return weighted mean and standard deviation over time, as pyannote.audio's ``StatsPool``.

    ``frames`` is (batch, features, frames) and ``masks`` (batch, speakers, mask frames). Each frame
    has the weight of the nearest earlier mask frame. The result is
    (batch, speakers, 2 x features). The variance is the unbiased one for reliability weights. A
    mask of zeros gives zeros.
    """
    nearest = torch.arange(frames.shape[2]) * masks.shape[2] // frames.shape[2]
    # Indexing by brackets is exported as GatherND between two transpositions, which Qualcomm's
    # emulator computes wrongly in float16. index_select is exported as one Gather.
    weights = masks.index_select(2, nearest.to(masks.device)).unsqueeze(2)
    values = frames.unsqueeze(1)
    # pyannote.audio adds 1e-8 to both divisors, which gives the same result for masks of zeros and
    # ones. But half precision cannot hold 1e-8, and onnxscript's optimiser takes it for zero and
    # removes the addition, so that masks with one frame or none would give NaN.
    total = weights.sum(dim=3).clamp(min=LEAST)
    mean = (values * weights).sum(dim=3) / total
    squares = (values - mean.unsqueeze(3)).square()
    freedom = (total - weights.square().sum(dim=3) / total).clamp(min=LEAST)
    deviation = ((squares * weights).sum(dim=3) / freedom).sqrt()
    return torch.cat((mean, deviation), dim=2)
