"""ResNet-50 v1.5 trained by loops written by hand, as an expert would write them: nothing of energybench is in here.

A contestant of `resnet50.py`: it makes itself ready when it is told to, and then trains for as long as each line on
standard input says. Synthetic images stay on the device. Ways: eager; compile; graph, which is torch.compile with the
whole step (forward, backward, optimiser) in a CUDA graph; timm and timm-compile, which are the train loop of timm's
benchmark script: its model, its optimiser and its new random targets for each step, but without its wait for the device
after each step.
"""

from __future__ import annotations

import argparse
import time

import torch
from contest import answer
from torch import nn

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
WAYS = ("eager", "compile", "graph", "timm", "timm-compile")


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def resnet50(classes: int) -> nn.Module:
    blocks: list[nn.Module] = []
    inputs = 64
    for stage, (width, count) in enumerate(STAGES):
        for block in range(count):
            blocks.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class Hand:
    def __init__(self, way: str, batch: int, size: int, device: str, mode: str, precision: str) -> None:
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        self.way, self.device, self.batch, self.half = way, device, batch, precision == "bf16"
        self.images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
        self.labels = torch.randint(1000, (batch,), device=device)
        self.net = self._timm() if way.startswith("timm") else resnet50(1000)
        self.net = self.net.to(device, memory_format=torch.channels_last).train()
        self.optimizer = self._optimizer()
        self.loss = nn.CrossEntropyLoss()
        self.run = self.net
        if way in ("compile", "graph", "timm-compile"):
            self.run = torch.compile(self.net, mode=None if mode == "default" else mode)
        self.step = self._step
        if way == "graph" and device == "cuda":
            self._capture()
        self.train_for(0.0, least=3)

    def _timm(self) -> nn.Module:
        import timm

        return timm.create_model("resnet50", num_classes=1000)

    def _optimizer(self) -> torch.optim.Optimizer:
        if self.way.startswith("timm"):
            from timm.optim import create_optimizer_v2

            return create_optimizer_v2(self.net, opt="sgd", lr=1e-4)
        return torch.optim.SGD(self.net.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True)

    def _step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            logits = self.run(self.images)
            if self.way.startswith("timm"):
                self.labels = torch.randint(1000, (self.batch,), device=self.device)
            loss = self.loss(logits, self.labels)
        loss.backward()
        self.optimizer.step()

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(5):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._step()
        self.step = graph.replay

    def train_for(self, seconds: float, least: int = 1) -> tuple[int, float]:
        """Steps made and seconds taken; now and then the host waits for the device, so that it is not far ahead."""
        self._wait()
        steps, begun = 0, time.perf_counter()
        marks: list[torch.cuda.Event] = []
        while steps < least or time.perf_counter() - begun < seconds:
            self.step()
            steps += 1
            if self.device == "cuda" and steps % 4 == 0:
                marks.append(torch.cuda.Event())
                marks[-1].record()
                if len(marks) > 2:
                    marks.pop(0).synchronize()
        self._wait()
        return steps, time.perf_counter() - begun

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mode", default="default", help="of torch.compile")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    given = parser.parse_args()
    answer(lambda: Hand(given.way, given.batch, given.size, given.device, given.mode, given.precision).train_for)


if __name__ == "__main__":
    main()
