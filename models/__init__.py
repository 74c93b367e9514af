"""Factory model bundles: one folder each; read through importlib.resources."""
