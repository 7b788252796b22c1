"""The batches of a data set in an order that any step can begin in: no batch is replayed, and workers change nothing.

The order of an epoch is drawn from (seed, epoch). Each sample is made under generators that are seeded by (seed, epoch,
index), so a random augmentation is the same whoever makes it, and whenever.
"""

from __future__ import annotations

import hashlib
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from relay.errors import RelayError

if TYPE_CHECKING:
    import torch

# Of a sample: its epoch, and its index in the data set.
_Place = tuple[int, int]


class BatchOrder:
    """Which samples each batch has. `size`: samples per batch; `samples`: those of the data set."""

    def __init__(self, samples: int, size: int, *, epochs: int, seed: int, shuffle: bool, drop_last: bool) -> None:
        """Raises RelayError if an epoch would have no batch."""
        self._samples, self._size, self._seed, self._shuffle = samples, size, seed, shuffle
        self.per_epoch = samples // size if drop_last else -(-samples // size)
        if size < 1 or self.per_epoch < 1:
            raise RelayError(f"run.batches: {samples} samples make no batch of {size}; give a smaller size")
        self.total = epochs * self.per_epoch

    def from_step(self, first: int) -> Iterator[list[_Place]]:
        """The samples of each batch from step `first` to the end."""
        epoch: int = -1
        indices: Sequence[int] = ()
        for step in range(first, self.total):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                indices = self._epoch(epoch)
            at = step % self.per_epoch * self._size
            yield [(epoch, index) for index in indices[at : at + self._size]]

    def _epoch(self, epoch: int) -> Sequence[int]:
        if not self._shuffle:
            return range(self._samples)
        import torch

        generator = torch.Generator().manual_seed(_seed_of(self._seed, epoch, -1))
        order: list[int] = torch.randperm(self._samples, generator=generator).tolist()
        return order


class Samples:
    """A data set by place. Making samples leaves the global generators of the process as they were."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __getitems__(self, places: Sequence[_Place]) -> list[Any]:
        """The samples of a batch, as torch's loader asks for them."""
        import torch

        python, torch_state = random.getstate(), torch.get_rng_state()
        numpy = sys.modules.get("numpy")
        numpy_state = numpy.random.get_state() if numpy else None
        try:
            return [self._made(epoch, index) for epoch, index in places]
        finally:
            random.setstate(python)
            torch.set_rng_state(torch_state)
            if numpy:
                numpy.random.set_state(numpy_state)

    def _made(self, epoch: int, index: int) -> Any:
        import torch

        seed = _seed_of(self._seed, epoch, index)
        random.seed(seed)
        # Not torch.manual_seed, which also looks for GPUs, and takes a hundred times as long.
        torch.default_generator.manual_seed(seed)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed(seed % 2**32)
        return self._dataset[index]


def loader_from(
    dataset: Any, order: BatchOrder, first: int, *, seed: int, workers: int, collate: Callable[[Any], Any] | None
) -> torch.utils.data.DataLoader[Any]:
    """A loader of the batches from step `first` on."""
    import torch
    from torch.utils.data import DataLoader

    return DataLoader(
        Samples(dataset, seed),  # type: ignore[arg-type]
        batch_sampler=_Places(order, first),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_ignore_signals,
        # Its own seed for the workers, which every sample replaces, would be drawn from the program's generator.
        generator=torch.Generator().manual_seed(0),
    )


class _Places:
    """The batches of an order from a step on."""

    def __init__(self, order: BatchOrder, first: int) -> None:
        self._order, self._first = order, first

    def __iter__(self) -> Iterator[list[_Place]]:
        return self._order.from_step(self._first)

    def __len__(self) -> int:
        return self._order.total - self._first


def _ignore_signals(worker: int) -> None:
    # A stop is answered by the program. A worker that died of it would end the program with an error.
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _seed_of(seed: int, epoch: int, index: int) -> int:
    """63 bits that look random, different for each sample of each epoch."""
    text = f"{seed} {epoch} {index}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
