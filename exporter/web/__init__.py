"""The HTTP stage: /metrics, the health endpoints, reload and a landing page.

It knows how to talk to strangers and refuses to know what is being watched: everything it
shows comes through ``board.Board``. It reads no file, opens no outgoing connection and asks
no probe, so a supervisor that hangs costs a scrape nothing.
"""
