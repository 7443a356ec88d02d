"""Datasets on disk: manifest, identity, Arrow token shards, verification, sample order, loader.

This package is the bottom layer: it imports none of the others, and torch only in `shards.torch`.
"""
