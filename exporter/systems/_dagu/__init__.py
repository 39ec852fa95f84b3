"""The files of Dagu 1.17 to 2.15, and what they mean beside the process table.

Names and formats as of dagucloud/dagu v1.17 to v2.15.1: a run is a directory, each attempt at it a directory below,
whose status.jsonl grows by a line per change; a heartbeat is a file of its own.
"""
