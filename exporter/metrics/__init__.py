"""From frozen values to the bytes of /metrics. Pure: nothing here looks at the world or asks for the time.

catalogue: every metric there is. render: Snapshot -> families. own: the exporter's own instruments.
encode: families -> bytes.
"""

from __future__ import annotations
