"""The parts of the system cronicle: its API, its files, its jobs, and processes that outlived it."""
