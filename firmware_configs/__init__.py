"""Device profiles and system files; read through importlib.resources."""
