"""Baselines: the controls that every result stands beside.

Other people's IMU encoders, written anew from their published shapes (none of the authors' code or
weights are used), and forests on classical features. No runtime code imports them and no bundle
ever holds one.
"""
