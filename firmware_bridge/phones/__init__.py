"""Phones as wearables, over the network: phyphox is asked, Sensor Logger sends.

Neither has any authentication or encryption: who can reach the port can read, or make up, data.
"""
