"""Data parallelism: several processes, one result. `torchrun` starts them; in a process of its own
everything here does nothing.

Every process runs the whole job with the same seed and so draws the same batches. Of each batch it
pushes only its own share through the tower and gets the features of the others
(`encoded_together`); the loss of the whole batch is then computed by all of them, its gradient
flows back through the own share alone, and the shares are added up (`add_up_gradients`):

    dL/dtheta = sum over processes p, over images i of p's share of   dL/dv_i  dv_i/dtheta

So every process takes the same steps and the same decisions, those that a single process would
take, but for the order in which floating-point numbers are added."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others: while one decodes images, or one alone writes."""


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that `torchrun` started; yields the device of this one. Without
    `torchrun` it is `device`, alone.
    """
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if device.type == "cuda" else device
    if own.type == "cuda":
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield own
    finally:
        distributed.destroy_process_group()


def processes() -> int:
    """Return how many processes share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main() -> bool:
    """True in the one process that speaks, writes and signs."""
    return os.environ.get("RANK", "0") == "0"


def encoded_together(encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Return `encode(inputs)`, [N, ...] of inputs [N, ...], to which each process contributes its
    share of the rows.

    `encode` must treat every row alone. Gradients flow through this process's rows alone.
    """
    if processes() == 1:
        return encode(inputs)
    size = -(-len(inputs) // processes())
    first = size * distributed.get_rank()
    rows = torch.arange(first, first + size).clamp(
        max=len(inputs) - 1
    )  # the last row again where they do not go round
    own = encode(inputs[rows.to(inputs.device)])
    parts = [torch.empty_like(own) for _ in range(processes())]
    distributed.all_gather(parts, own.detach().contiguous())
    parts[distributed.get_rank()] = own
    return torch.cat(parts)[: len(inputs)]


def add_up_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by the sum of those of all processes, in place."""
    if processes() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # no row of the batch was this process's own
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)


def own_rows(values: Tensor) -> Tensor:
    """Return this process's share of the rows of a tensor [N, ...]; over all processes every row
    comes once.
    """
    return values.tensor_split(processes())[distributed.get_rank()] if processes() > 1 else values


def added_up(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if processes() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value
