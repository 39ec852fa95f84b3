"""How the C allocator is asked to treat us: few threads that sleep most of the time want no heap of their own each."""

from __future__ import annotations

import ctypes
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
"""Numbers of mallopt(3), glibc."""
_BLOCK: Final = 64 * 1024


def spare_memory() -> None:
    """One arena for all threads, and big blocks given back at once. Does nothing where libc has no mallopt (musl)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_ARENA_MAX, 1)
    mallopt(M_MMAP_THRESHOLD, _BLOCK)
    mallopt(M_TRIM_THRESHOLD, _BLOCK)
