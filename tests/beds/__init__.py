"""Machines to test on: root file systems, and what boots them."""
