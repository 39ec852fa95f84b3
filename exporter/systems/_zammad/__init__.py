"""Zammad by subject: its services and their forks, session nodes, delayed jobs, scheduled jobs, the monitoring API."""
