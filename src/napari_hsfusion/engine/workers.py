"""Independent parts of a stage, worked out at the same time on the CPU's cores.

torch's own threads split single operations: on images of usual size most of these are so
short that several threads gain little, and where another program takes a core they wait for
each other by spinning, many times slower than one. Parts that need nothing of each other
have a thread each instead: the same to the last bit however many are at work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from .device import limited_threads, threads_for

T = TypeVar("T")


@dataclass(frozen=True)
class Crew:
    """How many tasks are at work, and with how many CPU threads.

    Attributes
    ----------
    cores : int
        Tasks at work at a time, at most.
    threads : int, optional
        Of every task; by default the cores are shared out, and a single worker has
        torch's own setting.
    """

    cores: int = 1
    threads: int | None = None

    @classmethod
    def of(cls, device: torch.device, values: int, alone: bool = False) -> Crew:
        """Crew for images of so many values; on a GPU, and `alone`, one task at a time.

        Alone a task has one thread too, and so the bits that it has beside others.
        """
        return cls(1, 1) if alone else cls(workers(device), threads_for(values))

    def in_order(self, tasks: Iterable[Callable[[], T]], count: int) -> Iterator[T]:
        """Results of `count` tasks, in the order of the tasks.

        The tasks are taken from the iterable in the caller's thread, one more at most than
        are at work. Whoever stops early waits for those that have begun; the others are
        dropped.

        Raises
        ------
        Exception
            Of the first task that fails.
        """
        hands = min(self.cores, count)
        if hands <= 1:
            for task in tasks:
                with limited_threads(self.threads):
                    result = task()
                yield result
            return
        own = torch.get_num_threads()
        each = self.threads or max(1, self.cores // hands)
        pool = ThreadPoolExecutor(hands, "worker", _use_threads, (each,))
        ahead: deque[Future[T]] = deque()
        failed: list[BaseException] = []
        try:
            for task in tasks:
                ahead.append(pool.submit(_unless, failed, task))
                if len(ahead) > hands:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(own)  # threads that start later take the last that was set


def _unless(failed: list[BaseException], task: Callable[[], T]) -> T:
    """Result of a task, which does not start where another has failed."""
    if failed:
        raise failed[0]
    try:
        return task()
    except BaseException as error:
        failed.append(error)
        raise


def _use_threads(count: int) -> None:
    torch.get_num_threads()  # else a thread's first operation takes what was last set anywhere
    torch.set_num_threads(count)


def workers(device: torch.device) -> int:
    """Tasks that are at work at a time on a device: the CPU threads that torch may use, or one."""
    return torch.get_num_threads() if device.type == "cpu" else 1


ALONE = Crew()
"""One task at a time, with torch's own setting."""
