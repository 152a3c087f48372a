"""Networks that were trained in this process, kept for the next run on the same pair.

A run with other sampling settings finds them and trains nothing; they are the same to the
bit as trained anew. The last few are kept, within a limit of bytes, on the host.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOST = 4
"""Sets of networks that are kept."""

MOST_BYTES = 256 << 20
"""Bytes of weights that are kept; the published networks take 88 million."""


@dataclass(frozen=True)
class Kept:
    """Weights of a set of networks, and what is known of their training.

    Attributes
    ----------
    weights : mapping of str to mapping of str to Tensor
        By network and name, on the host.
    record : mapping
        JSON-able.
    """

    weights: Mapping[str, Mapping[str, Tensor]]
    record: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Size of the weights."""
        return sum(
            value.numel() * value.element_size()
            for state in self.weights.values()
            for value in state.values()
        )

    def fill(self, name: str, network: nn.Module) -> nn.Module:
        """Give a network these weights, and make it ready for use."""
        network.load_state_dict(self.weights[name])
        return network.eval().requires_grad_(False)


class NetworkCache:
    """The networks that were used last; safe across threads.

    Parameters
    ----------
    most, most_bytes : int
        Limits, of sets and of bytes.
    """

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._entries: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._entries

    def get(self, key: str) -> Kept | None:
        """Networks under a key, which are then the last to be dropped."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: str, networks: Mapping[str, nn.Module], record: Mapping[str, Any]) -> None:
        """Keep copies of the weights, unless they alone are over the limit."""
        weights = {
            name: {k: v.detach().to("cpu", copy=True) for k, v in network.state_dict().items()}
            for name, network in networks.items()
        }
        kept = Kept(weights, deepcopy(dict(record)))
        if kept.bytes > self._most_bytes:
            return
        with self._lock:
            self._entries[key] = kept
            self._entries.move_to_end(key)
            while self._over():
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Drop all networks."""
        with self._lock:
            self._entries.clear()

    def _over(self) -> bool:
        size = sum(kept.bytes for kept in self._entries.values())
        return len(self._entries) > self._most or size > self._most_bytes


CACHE = NetworkCache()
"""The networks of this process."""


def forget_networks() -> None:
    """Drop all networks that this process keeps, so that the next run trains anew."""
    CACHE.clear()


def place(device: torch.device) -> str:
    """What the last bits of a training depend on, besides its settings: where it ran."""
    name = f"{device.type}:{device.index or 0}"
    return name if device.type == "cuda" else f"{name}, {torch.get_num_threads()} threads"
