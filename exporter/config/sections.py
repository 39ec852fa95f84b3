"""Sections of systems that ask a server: Redis, or an API over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import PlainValidator

from exporter.config.dsn import api_flaw, redis_flaw
from exporter.config.fields import Flaw, Secret, SecretFile, SecretText, refuse_all, secret_checked_by, text
from exporter.config.schema import Options, exactly_one


class RedisOptions(Options):
    """A Redis server that is read."""

    url: Annotated[SecretText, secret_checked_by(redis_flaw)] | None = None
    url_file: Annotated[SecretFile, secret_checked_by(redis_flaw)] | None = None

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """The URL comes from one place."""
        yield from exactly_one(given, "url", "url_file")

    @property
    def dsn(self) -> Secret:
        """The URL, wherever it came from."""
        found = self.url or self.url_file
        if found is None:
            raise AssertionError("relations() lets no section pass without one of them")
        return found


def _base_url(value: object) -> str:
    written = text(value, "a URL")
    flaw = api_flaw(written)
    if flaw is not None:
        raise refuse_all((flaw,))
    return written


BaseUrl = Annotated[str, PlainValidator(_base_url)]
"""An http or https URL without user, password and query."""
_SECRETS: Final = ("token", "token_file", "key", "key_file")


class ApiOptions(Options):
    """An API that is asked over HTTP or HTTPS."""

    url: BaseUrl
    token: SecretText | None = None
    token_file: SecretFile | None = None
    key: SecretText | None = None
    key_file: SecretFile | None = None

    @classmethod
    def relations(cls, given: Mapping[str, object]) -> Iterator[Flaw]:
        """At most one secret."""
        if any(given.get(key) is not None for key in _SECRETS):
            yield from exactly_one(given, *_SECRETS)

    @property
    def secret(self) -> Secret | None:
        """The token or key, wherever it came from; None where the API asks for none."""
        return self.token or self.token_file or self.key or self.key_file
