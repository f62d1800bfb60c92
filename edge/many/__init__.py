"""Folders of recordings, labelled in parallel on one machine or many."""
