"""Baselines: other people's IMU encoders, written anew from their published shapes.

For comparison only: no runtime code imports them and no bundle ever holds one. All weights are
random; none of the authors' code or weights are used.
"""
