"""Text SQL with :names made into what a driver takes: positional marks and a tuple. Imported by the first look only.

SQLAlchemy Core does this; its engines and pools are not used. An engine asks the server questions of its own when it
connects first, in transactions of its own, and its pool resets connections: all of that is traffic that a watcher
behind pgbouncer cannot have, and that a reader of the server's log would have to explain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, text
from sqlalchemy.engine.default import DefaultDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import BindParameter

_FORMAT: Final = DefaultDialect(paramstyle="format")
_QMARK: Final = DefaultDialect(paramstyle="qmark")


def formatted(sql: str, binds: Mapping[str, object]) -> tuple[str, tuple[Any, ...]]:
    """For psycopg and PyMySQL: ``%s`` for each value, ``%`` itself doubled."""
    return _written(sql, binds, _FORMAT)


def marked(sql: str, binds: Mapping[str, object]) -> tuple[str, tuple[Any, ...]]:
    """For sqlite3: ``?`` for each value."""
    return _written(sql, binds, _QMARK)


def _written(sql: str, binds: Mapping[str, object], dialect: DefaultDialect) -> tuple[str, tuple[Any, ...]]:
    parameters: list[BindParameter[Any]] = [
        # IN (NULL) holds for nothing; SQLAlchemy's own empty set is a subquery that has a type, which text does not.
        bindparam(name, list(value) or [None], expanding=True)
        if isinstance(value, (list, tuple, set, frozenset))
        else bindparam(name, value)
        for name, value in binds.items()
    ]
    compiled = text(sql).bindparams(*parameters).compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    if missing := [bind.key for bind in compiled.binds.values() if bind.required]:
        # SQLAlchemy would send NULL for it; where a colon is meant, it is written \:
        raise ValueError(f"no value for :{missing[0]} of a statement")
    values = compiled.params
    return str(compiled), tuple(values[name] for name in getattr(compiled, "positiontup", None) or ())
