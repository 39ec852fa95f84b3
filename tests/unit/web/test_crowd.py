from __future__ import annotations

import pytest

from exporter.web.crowd import Crowd, peer_group


class Guest:
    """A connection that remembers whether it was dropped."""

    def __init__(self, *, idle: bool = True) -> None:
        self.idle = idle
        self.dropped = False

    def abort(self) -> None:
        """Dropped."""
        self.dropped = True


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_peer_is_what_one_host_can_have(address: str, group: str) -> None:
    """IPv4 by address, also when mapped; IPv6 by /64."""
    assert peer_group(address) == group


def test_a_newcomer_takes_the_place_of_the_oldest_idle_connection_of_its_peer() -> None:
    """At the peer's limit the busy ones stay, the oldest idle one goes."""
    crowd = Crowd(10, 3)
    busy, old, young = Guest(idle=False), Guest(), Guest()
    for guest in (busy, old, young):
        assert crowd.admit("a", guest)
    assert crowd.admit("a", Guest())
    assert [busy.dropped, old.dropped, young.dropped] == [False, True, False]
    assert len(crowd) == 3


def test_a_newcomer_is_refused_when_all_connections_of_its_peer_are_busy() -> None:
    """Work under way is never dropped for new work of the same peer."""
    crowd = Crowd(10, 2)
    guests = [Guest(idle=False), Guest(idle=False)]
    assert all(crowd.admit("a", guest) for guest in guests)
    assert not crowd.admit("a", Guest())
    assert crowd.admit("b", Guest())
    assert not any(guest.dropped for guest in guests)


def test_when_all_is_full_the_peer_with_the_most_connections_pays() -> None:
    """A peer with one connection does not lose it to a peer with many."""
    crowd = Crowd(4, 3)
    single = Guest()
    crowd.admit("scraper", single)
    many = [Guest() for _ in range(3)]
    for guest in many:
        crowd.admit("flood", guest)
    assert crowd.admit("other", Guest())
    assert many[0].dropped
    assert not single.dropped
    assert len(crowd) == 4


def test_leaving_twice_counts_once() -> None:
    """Asyncio reports the loss of a connection that the crowd itself has dropped."""
    crowd = Crowd(2, 1)
    first, second = Guest(), Guest()
    crowd.admit("a", first)
    crowd.admit("a", second)
    crowd.leave("a", first)
    assert len(crowd) == 1
    crowd.leave("a", second)
    crowd.leave("a", second)
    assert len(crowd) == 0
