"""Everything of a look that is not a run: heartbeats, queue items, signs of the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exporter.model import Reason
from exporter.probes.errors import ProbeError
from exporter.systems._dagu.pulses import read_pulses
from exporter.systems._dagu.queue_items import read_items
from exporter.systems._dagu.scheduler import Signs, read_signs

if TYPE_CHECKING:
    from exporter.model import Trouble
    from exporter.systems._dagu.pulses import Pulse
    from exporter.systems._dagu.queue_items import Item
    from exporter.systems._dagu.reading import Reading


@dataclass(slots=True)
class Files:
    """What was read of each kind."""

    pulses: list[Pulse] = field(default_factory=list)
    pulse_trouble: Trouble | None = None
    """Why there are no heartbeats, where they could not be read."""
    queues: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    signs: Signs = field(default_factory=lambda: Signs(None, None))

    def pulse_of(self, run_id: str) -> Pulse | None:
        """The freshest heartbeat of a run; one that was killed and retried has two."""
        mine = [pulse for pulse in self.pulses if pulse.run_id == run_id]
        return min(mine, key=lambda pulse: float("inf") if pulse.age is None else pulse.age, default=None)


def read_files(reading: Reading) -> Files:
    """All that can be read. Heartbeats come first: a run that ends meanwhile is then over, and not silent."""
    files = Files()
    try:
        files.pulses = read_pulses(reading)
    except ProbeError as error:
        if error.reason is not Reason.MISSING or reading.layout.proc in reading.layout.given:
            files.pulse_trouble = error.trouble
            reading.troubles.append(error.trouble)
    try:
        files.queues, files.items = read_items(reading)
    except ProbeError as error:
        if error.reason is not Reason.MISSING or reading.layout.queue in reading.layout.given:
            reading.troubles.append(error.trouble)
    reading.part(lambda: _read_signs(reading, files))
    return files


def _read_signs(reading: Reading, files: Files) -> None:
    files.signs = read_signs(reading)
