"""Several processes that train one run, started by `torchrun -m training train`: each takes its rows of every batch.

All of them hold the same weights: they start alike, and step with gradients averaged over all. Rank 0 alone writes.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor, distributed, nn

from restoration.device import choose_device
from restoration.errors import InvalidOption
from training.damage import Pairs


@dataclass(frozen=True)
class Ranks:
    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes checkpoints, curves and samples."""
        return self.rank == 0

    def own_rows(self, pairs: Pairs) -> Pairs:
        """This process's share of a batch. Raises InvalidOption if the batch cannot be shared out evenly."""
        num_rows, rest = divmod(len(pairs.damaged), self.world_size)
        if rest:
            raise InvalidOption(
                f"a batch of {len(pairs.damaged)} cannot be shared out evenly among {self.world_size} processes; start "
                "a number of them that divides it"
            )
        own = slice(self.rank * num_rows, (self.rank + 1) * num_rows)
        return Pairs(**{field.name: getattr(pairs, field.name)[own] for field in fields(pairs)})

    def average_gradients(self, network: nn.Module) -> None:
        if self.world_size == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        averages = torch.split(flat / self.world_size, [gradient.numel() for gradient in gradients])
        for gradient, average in zip(gradients, averages, strict=True):
            gradient.copy_(average.view_as(gradient))

    def average(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Scalars, as they are over all processes."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        if self.world_size > 1:
            distributed.all_reduce(stacked)
        return dict(zip(values, (stacked / self.world_size).tolist(), strict=True))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is so for one of them at least: all must stop at the same step."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor(float(flag), device=device)
        distributed.all_reduce(flags)
        return bool(flags)


ONE_PROCESS = Ranks()


@contextmanager
def join_ranks(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """The processes that torchrun started, if it did, and this one's device: a GPU each, or the CPU for all."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device)
    if world_size == 1:
        yield ONE_PROCESS, chosen
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), world_size), chosen
    finally:
        distributed.destroy_process_group()


def expect_alone(command: str) -> None:
    """Raises InvalidOption under torchrun, for what one process does."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InvalidOption(f"`{command}` is for one process; train with torchrun, then do the rest without it")
