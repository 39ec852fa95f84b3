"""TLS to MySQL and MariaDB, as the parameters of the URL want it.

The context is ours: PyMySQL does not compare the host's name with the certificate where no CA file is named
(ssl_verify_identity alone), and does not verify anything where only a CA file is.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.model import Reason
from exporter.probes.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.probes.sql.address import Address

MODES: Final = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
"""Least first; MySQL's ssl-mode. Without any parameter: preferred."""
_PREFERRED, _REQUIRED, _VERIFY_CA, _VERIFY_IDENTITY = 1, 2, 3, 4

_FILES: Final = {
    "ssl_ca": "ca",
    "sslca": "ca",
    "ssl_cert": "cert",
    "sslcert": "cert",
    "ssl_key": "key",
    "sslkey": "key",
}
_SWITCHES: Final = {
    "ssl_disabled": 0,
    "ssl": _REQUIRED,
    "ssl_verify_cert": _VERIFY_CA,
    "sslverify": _VERIFY_CA,
    "ssl_verify_identity": _VERIFY_IDENTITY,
}
_IGNORED: Final = frozenset({"charset", "connect_timeout", "read_timeout", "write_timeout"})
"""Ours are what the probe's deadline allows."""
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})


@dataclass(frozen=True, slots=True)
class Tls:
    """What is wanted: a level of MODES, and files."""

    level: int = _PREFERRED
    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def arguments(self, where: str) -> Mapping[str, Any]:
        """PyMySQL's arguments; raises ProbeError UNSUPPORTED where a file of certificates cannot be used."""
        if self.level < _PREFERRED:
            return {"ssl_disabled": True}
        if self.level == _PREFERRED and self.cert is None:
            return {}
        try:
            context = ssl.create_default_context(cafile=self.ca)
            # as PyMySQL: MySQL's self-made certificates fail Python's strict rules of 3.13
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.check_hostname = self.level >= _VERIFY_IDENTITY
            context.verify_mode = ssl.CERT_REQUIRED if self.level >= _VERIFY_CA else ssl.CERT_NONE
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ValueError):
            raise ProbeError(
                Reason.UNSUPPORTED,
                f"TLS to {where} cannot be set up: a file of ssl_ca, ssl_cert or ssl_key cannot be read or holds no "
                "certificate; correct the path, or let the exporter's user read it",
            ) from None
        return {"ssl": context}


def tls_of(address: Address) -> Tls:
    """Read the parameters of a URL; raises ProbeError UNSUPPORTED for one that is not known: it may be a safety."""
    level = _PREFERRED
    files: dict[str, str] = {}
    for name, value in address.parameters.items():
        if name in _IGNORED:
            continue
        if name in _FILES:
            files[_FILES[name]] = value
        elif name in {"ssl_mode", "sslmode"}:
            word = value.lower().replace("-", "_").removeprefix("ssl_mode_")
            if word not in MODES:
                raise _unknown(address.where)
            level = MODES.index(word)
        elif name in _SWITCHES and value.lower() in _TRUE | _FALSE:
            if value.lower() in _TRUE:
                level = _SWITCHES[name] if name == "ssl_disabled" else max(level, _SWITCHES[name])
        else:
            raise _unknown(address.where)
    if "ca" in files and level in {_PREFERRED, _REQUIRED}:
        level = _VERIFY_CA  # as the mysql client: who names a CA wants it asked
    return Tls(level, **files)


def _unknown(where: str) -> ProbeError:
    return ProbeError(
        Reason.UNSUPPORTED,
        f"{where} cannot be connected to, because a parameter in url is unknown or has a wrong value; known are "
        "unix_socket, ssl_mode (disabled, preferred, required, verify_ca, verify_identity), ssl_ca, ssl_cert, ssl_key",
    )
