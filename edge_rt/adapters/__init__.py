"""One foreign thing a file: sensors, cameras, interpreter, storage. Imports core, never each other."""
