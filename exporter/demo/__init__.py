"""The demo: a real little supervisor is broken on a timetable, and the metrics are shown beside it.

stage.py makes the processes and breaks them, script.py says how and what must then be seen, performance.py goes
through it, telling.py prints, supervisor.py is the program that is broken. Nothing of it outlives the demo, however
the demo ends.
"""

from __future__ import annotations

from exporter.demo.performance import play

__all__ = ["play"]
