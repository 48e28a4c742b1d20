"""ResNet-50 v1.5 trained by loops written by hand, as an expert would write them: nothing of energybench is in here.

A contestant: see `contest.py`. Synthetic images stay on the device. Ways: eager; recorded, the whole step (forward,
backward, optimiser) in a CUDA graph; compile; graph, which is torch.compile and recorded; timm and timm-compile, which
are the train loop of timm's benchmark script: its model, its optimiser and its new random targets for each step, but
without its wait for the device after each step. Several ranks train by DistributedDataParallel, compiled (eager,
compile).
"""

from __future__ import annotations

import argparse
import time

import torch
from contest import answer, undecided
from torch import nn

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
WAYS = ("eager", "recorded", "compile", "graph", "timm", "timm-compile")


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


LOOK_S = 0.25
"""How often several ranks agree on how many steps to go on."""

FIRST_LOOK = 4
"""Steps before the first agreement."""


class Hand:
    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.way, self.device, self.half = given.way, given.device, given.precision == "bf16"
        self.batch = given.batch // given.world

    def load(self) -> None:
        torch.manual_seed(0)
        size = self.given.size
        self.images = torch.randn(self.batch, 3, size, size, device=self.device).to(memory_format=torch.channels_last)
        self.labels = torch.randint(1000, (self.batch,), device=self.device)
        self.net = self._timm() if self.way.startswith("timm") else resnet50(1000)
        self.net = self.net.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = self._optimizer()
        self.loss = nn.CrossEntropyLoss()
        self.run = self._parallel() if self.given.world > 1 else self.net
        if self.way in ("compile", "graph", "timm-compile"):
            mode = self.given.mode
            self.run = torch.compile(self.run, mode=None if mode == "default" else mode)
        self.step = self._step
        with undecided():
            for _ in range(3):
                self._step()
            self._wait()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def ready(self) -> None:
        if self.way in ("recorded", "graph") and self.device == "cuda":
            self._capture()
        for _ in range(5):
            self.step()
        self._wait()

    def _parallel(self) -> nn.Module:
        from torch import distributed

        store = distributed.FileStore(f"{self.given.meeting}.store", self.given.world)
        backend = "cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=self.given.rank, world_size=self.given.world)
        devices = [0] if self.device == "cuda" else None
        return nn.parallel.DistributedDataParallel(self.net, device_ids=devices, gradient_as_bucket_view=True)

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

    def train(self, seconds: float, exchange: bool) -> tuple[int, float]:
        """Steps made and seconds taken; now and then the host waits for the device, so that it is not far ahead."""
        self._wait()
        steps, until, begun = 0, FIRST_LOOK, time.perf_counter()
        marks: list[torch.cuda.Event] = []
        while True:
            self.step()
            steps += 1
            if self.device == "cuda" and steps % 4 == 0:
                marks.append(torch.cuda.Event())
                marks[-1].record()
                if len(marks) > 2:
                    marks.pop(0).synchronize()
            if steps == until:
                if steps == FIRST_LOOK:
                    self._wait()  # else the first look would take the time of enqueueing for that of a step
                took = time.perf_counter() - begun
                left = min(seconds - took, LOOK_S)
                ahead = self._agreed(max(int(left / (took / steps)), 1) if left > 0 else 0)
                if not ahead:
                    break
                until += ahead
        self._wait()
        return steps, time.perf_counter() - begun

    def _agreed(self, steps: int) -> int:
        if self.given.world == 1:
            return steps
        told = torch.tensor([steps])
        torch.distributed.broadcast(told, 0)
        return int(told)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--batch", type=int, default=64, help="of all ranks together")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mode", default="default", help="of torch.compile")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--meeting", help="where several ranks meet")
    given = parser.parse_args()
    answer(lambda: Hand(given))


if __name__ == "__main__":
    main()
