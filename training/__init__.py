"""Training of the IMU encoder on a workstation."""
