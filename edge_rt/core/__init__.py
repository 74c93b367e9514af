"""Pure decisions and types: no socket, file, thread or clock. Standard library, numpy, msgspec."""
