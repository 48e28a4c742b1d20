"""Decodes JPEG files on the GPU, by nvJPEG through torchvision. Imports PyTorch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from energybench.images import EncodedBatch

log = logging.getLogger(__name__)

Decoder = Callable[[list[Any]], list[Any]]
"""From files, each (length,) uint8 on the host, to images, each (3, H, W) uint8 on the GPU."""


def decoder(device: Any) -> Decoder | None:
    """nvJPEG, where torchvision is there and was built with it."""
    if device.type != "cuda":
        return None
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except Exception:  # torchvision beside a torch of another build fails in any way it likes
        return None
    if not hasattr(torch.ops.image, "decode_jpegs_cuda"):
        return None

    def decode(files: list[Any]) -> list[Any]:
        images: list[Any] = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
        return images

    return decode


class Arrival:
    """A batch that is made on the GPU by another stream than the one that trains."""

    def __init__(self, images: Any, stream: Any) -> None:
        self._images = images
        self._made = torch.cuda.Event()
        self._made.record(stream)

    def arrived(self) -> None:
        """What is enqueued after this sees the batch."""
        torch.cuda.current_stream().wait_event(self._made)
        self._images.record_stream(torch.cuda.current_stream())

    def taken(self) -> None:
        """The allocator waits for the stream that `arrived` told it of."""


class Decoding:
    """Decodes batches beside the computation.

    Args:
        decode: of a batch's files.
        device: a torch.device.
    """

    def __init__(self, decode: Decoder, device: Any) -> None:
        self._decode = decode
        self._device = device
        self._stream = torch.cuda.Stream()

    def __call__(self, batch: EncodedBatch) -> tuple[Any, Arrival] | None:
        """(N, 3, H, W) float32 from 0 to 255, and when it is there; None where the device cannot decode a file."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of files that are mapped and so cannot be written
            files = [torch.from_numpy(np.frombuffer(file, np.uint8)) for file in batch.files]
        with torch.cuda.stream(self._stream):
            try:
                decoded = self._decode(files)
            except RuntimeError as error:
                log.warning("a batch is decoded by the CPU, as the GPU cannot: %s", str(error).splitlines()[0])
                return None
            view = batch.view
            images = torch.empty((len(decoded), 3, *view.size), device=self._device)
            for place, image, box, flip in zip(images, decoded, view.boxes.tolist(), view.flips.tolist(), strict=True):
                place.copy_(_view(image, box, view.size, flip=flip))
        return images, Arrival(images, self._stream)


def _view(image: Any, box: list[int], size: tuple[int, int], *, flip: bool) -> Any:
    """A box of an image (3, H, W) brought to `size`, bilinearly."""
    top, left, tall, wide = box
    part = image[:, top : top + tall, left : left + wide].unsqueeze(0).float()
    smaller = tall > size[0] and wide > size[1]
    view = torch.nn.functional.interpolate(part, size, mode="bilinear", antialias=smaller)[0]
    return view.flip(2) if flip else view
