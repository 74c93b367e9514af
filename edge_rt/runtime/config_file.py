"""The configuration file: read, checked, and trusted with programs only if it is root's alone."""

from __future__ import annotations

from pathlib import Path

from edge_rt.adapters.command import check_trusted
from edge_rt.core.config import Config, parse_config
from edge_rt.core.errors import ConfigError
from edge_rt.core.pin_config import programs_of


def load_config(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError, also when it cannot be read or is empty: that
    is what a power cut or a full disk leaves of one, and its defaults would watch nobody."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a configuration file") from None
    if not text.strip(b"\0 \t\r\n"):
        raise ConfigError(
            f"{path}: an empty file; bring it back from a copy, or copy a profile there"
        )
    config = parse_config(text, str(path))
    check_trusted(path, programs_of(config.outputs))
    return config
