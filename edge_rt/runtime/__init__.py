"""Composition, supervision, control socket, live status."""
