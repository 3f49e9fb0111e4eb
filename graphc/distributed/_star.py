"""Processes connected to rank 0 by TCP: every collective is one trip to rank 0 and back.

Made for a few processes on one machine or one network: rank 0 sees all data, and combines it in rank order, so results do
not depend on timing. Nothing is encrypted or authenticated, as with PyTorch's gloo: use it on networks you trust.
"""
from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable

from ..errors import GraphcError

_LENGTH = struct.Struct("<Q")


class DistributedError(GraphcError, RuntimeError):
    """A process of the group is gone, late, or was given other arguments."""


def _receive(s: socket.socket, n: int) -> bytes:
    parts = bytearray()
    while len(parts) < n:
        piece = s.recv(min(n - len(parts), 1 << 20))
        if not piece:
            raise ConnectionError("closed")
        parts += piece
    return bytes(parts)


class Star:
    """The connection of one process; collective calls must come in the same order on all of them."""

    def __init__(self, rank: int, world: int, host: str, port: int, timeout: float):
        self.rank, self.world, self.timeout = rank, world, timeout
        self.peers: dict[int, socket.socket] = {}
        if world == 1:
            return
        if rank == 0:
            self._listen(host, port)
        else:
            self._connect(host, port)

    def _listen(self, host: str, port: int) -> None:
        with socket.create_server((host, port), reuse_port=False) as server:
            server.settimeout(self.timeout)
            while len(self.peers) < self.world - 1:
                try:
                    s, _ = server.accept()
                except TimeoutError:
                    have = sorted(self.peers)
                    raise DistributedError(f"init_process_group: after {self.timeout:.0f} s only ranks {[0, *have]} of "
                                           f"{self.world} have come to {host}:{port}") from None
                self._prepare(s)
                (peer,) = _LENGTH.unpack(_receive(s, _LENGTH.size))
                if peer in self.peers or not 0 < peer < self.world:
                    raise DistributedError(f"init_process_group: rank {peer} came twice or is outside 0..{self.world - 1}")
                self.peers[peer] = s

    def _connect(self, host: str, port: int) -> None:
        end = time.monotonic() + self.timeout
        while True:
            try:
                s = socket.create_connection((host, port), timeout=self.timeout)
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise DistributedError(f"init_process_group: rank {self.rank} cannot reach rank 0 at {host}:{port} "
                                           f"({error})") from error
                time.sleep(0.05)
        self._prepare(s)
        s.sendall(_LENGTH.pack(self.rank))
        self.peers[0] = s

    def _prepare(self, s: socket.socket) -> None:
        s.settimeout(self.timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, peer: int, data: bytes) -> None:
        """To a directly connected process: rank 0 to any, any to rank 0."""
        try:
            self.peers[peer].sendall(_LENGTH.pack(len(data)))
            self.peers[peer].sendall(data)
        except OSError as error:
            raise DistributedError(f"rank {self.rank}: rank {peer} is gone ({error})") from error

    def receive(self, peer: int) -> bytes:
        """From a directly connected process; DistributedError when it is gone or late."""
        try:
            (n,) = _LENGTH.unpack(_receive(self.peers[peer], _LENGTH.size))
            return _receive(self.peers[peer], n)
        except (OSError, ConnectionError) as error:
            raise DistributedError(f"rank {self.rank}: nothing from rank {peer} within {self.timeout:.0f} s or it is gone "
                                   f"({error})") from error

    def combine(self, data: bytes, fn: Callable[[list[bytes]], list[bytes]]) -> bytes:
        """``fn`` of all processes' data, in rank order, on rank 0; each process gets its element of the result."""
        if self.rank:
            self.send(0, data)
            return self.receive(0)
        results = fn([data] + [self.receive(r) for r in range(1, self.world)])
        for r in range(1, self.world):
            self.send(r, results[r])
        return results[0]

    def close(self) -> None:
        for s in self.peers.values():
            s.close()
        self.peers.clear()
