"""A mount that hangs for real: FUSE whose server answers nothing but the mount, as NFS does when its server is gone."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

FUSE_INIT = 26
MNT_FORCE, MNT_DETACH = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def available() -> str:
    """Why no such mount can be had here; empty when it can."""
    if os.geteuid() != 0:
        return "a FUSE mount needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    return ""


class HungMount:
    """Every look-up below ``folder`` blocks in the kernel until the mount is taken away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _libc.mount(b"hung", os.fsencode(folder), b"fuse", 0, options.encode()):
            number = ctypes.get_errno()
            os.close(self._device)
            raise OSError(number, os.strerror(number))
        self._server = threading.Thread(target=self._answer_the_mount, daemon=True)
        self._server.start()
        self._server.join(5)

    def _answer_the_mount(self) -> None:
        request = os.read(self._device, 1 << 17)
        length, opcode, unique = struct.unpack_from("=IIQ", request)
        assert opcode == FUSE_INIT, (length, opcode)
        # fuse_init_out of protocol 7.31: major, minor, max_readahead, flags, background, congestion, max_write, ...
        body = struct.pack("=IIIIHHIIHH8I", 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0, *([0] * 8))
        os.write(self._device, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing the device aborts the connection: whoever waits gets ENOTCONN.
        os.close(self._device)
        _libc.umount2(os.fsencode(self.folder), MNT_FORCE | MNT_DETACH)
