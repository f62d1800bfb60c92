"""Personal labels: what a wearer showed with `edge-enroll`."""
