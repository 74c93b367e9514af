"""One foreign thing a file: sensors, cameras, interpreter, storage.

Adapters import core, never each other.
"""
