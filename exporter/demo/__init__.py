"""The demo: two real little supervisors are broken on a timetable, and the metrics are shown beside it.

stage.py makes the processes and breaks them, script.py says how and what must then be seen, performance.py goes
through it, telling.py prints; supervisor.py and solid_queue.py are the programs that are broken. Nothing of it outlives
the demo, however the demo ends.
"""

from __future__ import annotations

from exporter.demo.performance import play

__all__ = ["play"]
