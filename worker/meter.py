"""What each stage cost."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from shared.schemas.report import StageResult
from shared.states import Stage
from worker.ports import Progress


class Meter:
    """Announces stages, and takes their time and memory."""

    def __init__(self, progress: Progress, device: torch.device) -> None:
        self._progress, self._device = progress, device
        self.stages: list[StageResult] = []

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Announce a stage and measure the block."""
        self._progress.stage(stage)
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self._device)
        start = time.monotonic()
        yield
        self.stages.append(
            StageResult(
                stage=stage,
                seconds=time.monotonic() - start,
                peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                * 1024,  # Linux counts KiB
                peak_device_memory_bytes=torch.cuda.max_memory_allocated(self._device)
                if on_gpu
                else None,
            )
        )
