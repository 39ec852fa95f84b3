"""The C allocator keeps one heap, however many threads look."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, threading
from exporter.allocator import spare_memory
if {spare}:
    spare_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fdopen.restype = ctypes.c_void_p, ctypes.c_void_p
meet = threading.Barrier(4)
def hold():
    meet.wait()
    for _ in range(1000):
        libc.malloc(100)
    meet.wait()
threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mallopt")
@pytest.mark.parametrize(("spare", "several"), [(True, False), (False, True)])
def test_threads_share_one_heap_only_when_asked_to(spare: bool, several: bool) -> None:
    """malloc_info(3) counts them: one, or one a thread."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(spare=spare)], capture_output=True, text=True, check=True
    )
    if "<heap" not in done.stdout:
        pytest.skip("this libc has no malloc_info: mallopt does nothing here either")
    assert (done.stdout.count("<heap") > 1) is several
