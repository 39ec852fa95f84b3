"""Certificates of a made-up CA that no machine knows."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Papers(NamedTuple):
    """The CA's certificate, and certificates with their keys: for 127.0.0.1, and for another name."""

    ca: Path
    right: Path
    wrong: Path


def made_by(openssl: str, folder: Path) -> Papers:
    """Make all of them in a folder; they are good for two days."""

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True, timeout=20)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=made-up CA", "-days", "2",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    for name, alternative in (("right", "IP:127.0.0.1"), ("wrong", "DNS:elsewhere.example")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={alternative}\nauthorityKeyIdentifier=keyid\n")
        run("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", f"{name}.crt",
            "-days", "2", "-extfile", f"{name}.ext")  # fmt: skip
        both = (folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text()
        (folder / f"{name}.pem").write_text(both)
    return Papers(folder / "ca.pem", folder / "right.pem", folder / "wrong.pem")
