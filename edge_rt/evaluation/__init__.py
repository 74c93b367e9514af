"""Scoring of bundles on recordings, through the production pipelines."""
