"""The sections of systems that ask a server: where the secret comes from, and what no message shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from exporter.config import ConfigError, load_text
from exporter.config.schema import SupervisorOptions
from exporter.config.sections import ApiOptions, RedisOptions

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "QZXKJVWY79"


class AskedOptions(SupervisorOptions):
    """``system: asked``: a supervisor with a Redis server and an API."""

    redis: RedisOptions | None = None
    api: ApiOptions | None = None


def loaded(section: str) -> AskedOptions:
    """One supervisor with this section."""
    text = f"supervisors:\n  - name: a\n    system: asked\n    {section}\n"
    (only,) = load_text(text, {"asked": AskedOptions}, name="c.yml").supervisors
    assert isinstance(only, AskedOptions)
    return only


def refused(section: str) -> list[str]:
    """The words of every problem; none shows the secret."""
    with pytest.raises(ConfigError) as caught:
        loaded(section)
    words = [str(one) for one in caught.value.problems]
    assert SECRET not in "".join(words)
    return words


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"redis://:{SECRET}@h/1\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def test_the_url_of_redis_comes_from_the_file_or_from_the_key(file: Path) -> None:
    """Either way it is a secret as a whole."""
    for section in (f"redis: {{url: 'redis://:{SECRET}@h/1'}}", f"redis: {{url_file: {file}}}"):
        redis = loaded(section).redis
        assert redis is not None
        assert redis.dsn.reveal() == f"redis://:{SECRET}@h/1"
        assert SECRET not in repr(redis)


def test_the_url_of_redis_is_given_once_and_is_one(file: Path) -> None:
    """Problems name the key and not the value."""
    (words,) = refused(f"redis: {{url: 'redis://:{SECRET}@h', url_file: {file}}}")
    assert "supervisors[0].redis.url_file: both url" in words
    (words,) = refused("redis: {}")
    assert "none of url or url_file is given" in words
    (words,) = refused(f"redis: {{url: 'redis://:{SECRET}@h/x'}}")
    assert "supervisors[0].redis.url: the database in the URL is not a number" in words
    file.write_text(f"http://{SECRET}", encoding="utf-8")
    (words,) = refused(f"redis: {{url_file: {file}}}")
    assert "this is not the URL of a Redis server" in words


def test_an_api_needs_a_url_and_takes_one_secret(file: Path) -> None:
    """By the name that its system has for it, from the key or from a file; or none."""
    for given, expected in (
        (f"token: {SECRET}", SECRET),
        (f"key: {SECRET}", SECRET),
        (f"token_file: {file}", f"redis://:{SECRET}@h/1"),
        (f"key_file: {file}", f"redis://:{SECRET}@h/1"),
    ):
        api = loaded(f"api: {{url: 'http://h:8080/x', {given}}}").api
        assert api is not None
        assert api.url == "http://h:8080/x"
        assert api.secret is not None
        assert api.secret.reveal() == expected
        assert SECRET not in repr(api)
    silent = loaded("api: {url: 'https://h'}").api
    assert silent is not None
    assert silent.secret is None


def test_what_is_wrong_with_an_api_is_told(file: Path) -> None:
    """At its key, with a remedy."""
    (words,) = refused(f"api: {{url: 'http://h', token: {SECRET}, key_file: {file}}}")
    assert "supervisors[0].api.key_file: both token" in words
    (words,) = refused(f"api: {{url: 'http://u:{SECRET}@h'}}")
    assert "supervisors[0].api.url: the URL holds a user or a password" in words
    assert "leave them out" in words
    (words,) = refused(f"api: {{token: {SECRET}}}")
    assert "supervisors[0].api.url" in words
    (words,) = refused("api: {url: 8080}")
    assert "a URL" in words


def test_pydantic_errors_hold_no_input() -> None:
    """Even unformatted, the error of a model shows no value."""
    for model, given in (
        (RedisOptions, {"url": f"redis://:{SECRET} @h", "x": SECRET}),
        (ApiOptions, {"url": f"http://h?{SECRET}", "token": [SECRET]}),
    ):
        with pytest.raises(ValidationError) as caught:
            model.model_validate(given)
        assert SECRET not in str(caught.value)
