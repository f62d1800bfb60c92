"""The event log: written by `edge-run`, asked by `edge-log`."""
