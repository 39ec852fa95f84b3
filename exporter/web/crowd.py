"""Who may connect. aiohttp has no limit of its own, so a thousand idle clients would use up the descriptors.

A newcomer is never turned away for the sake of a connection that does nothing: when there is no room,
the oldest idle one goes. So a scraper gets through even from the address that holds all the others.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from typing import Protocol


class Guest(Protocol):
    """A connection, as the crowd sees it."""

    @property
    def idle(self) -> bool:
        """No complete request waits or is being answered."""
        ...

    def abort(self) -> None:
        """Drop it at once."""
        ...


def peer_group(address: str) -> str:
    """Whom to count together: an IPv4 address, or an IPv6 /64, which one host can have as a whole."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((ip, 64), strict=False))
    return str(ip)


class Crowd:
    """The connections of all listeners, oldest first within each peer."""

    def __init__(self, limit: int, limit_per_peer: int) -> None:
        self._limit = limit
        self._limit_per_peer = limit_per_peer
        self._peers: defaultdict[str, dict[Guest, None]] = defaultdict(dict)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def admit(self, peer: str, guest: Guest) -> bool:
        """Let the guest in, if need be in the place of an idle one; False when there is no such place."""
        if len(self._peers.get(peer, ())) >= self._limit_per_peer:
            if not self._make_room(peer):
                return False
        elif self._count >= self._limit:
            # The peer with the most connections pays, so one of few never loses to one of many.
            crowded = sorted(self._peers, key=lambda each: len(self._peers[each]), reverse=True)
            if not any(self._make_room(each) for each in crowded):
                return False
        self._peers[peer][guest] = None
        self._count += 1
        return True

    def leave(self, peer: str, guest: Guest) -> None:
        """The guest is gone; harmless when it was never in, or was put out."""
        guests = self._peers.get(peer)
        if guests is None or guest not in guests:
            return
        del guests[guest]
        self._count -= 1
        if not guests:
            del self._peers[peer]

    def _make_room(self, peer: str) -> bool:
        oldest = next((guest for guest in self._peers[peer] if guest.idle), None)
        if oldest is None:
            return False
        self.leave(peer, oldest)
        oldest.abort()
        return True
