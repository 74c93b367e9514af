"""The error tree. The branch says who must act; every message names the thing and the remedy.

    EdgeRtError
      OperatorError       config, credentials, files the person named      -> exit 2
        ConfigError, CredentialError, InputError
      PublisherError      a model bundle that must not run                 -> exit 3
        ManifestError, ModelError
      HardwareError       sensor, camera, disk                             -> exit 4
        SensorError, CameraError, StorageError
      DaemonError         the daemon refused, or is not there              -> exit 5
        DeniedError

Anything else that escapes is our own bug and keeps its traceback.
"""

from __future__ import annotations


class EdgeRtError(Exception):
    """Base of every error that edge_rt raises on purpose; ``str(error)`` is one line."""

    exit_code = 1


class OperatorError(EdgeRtError):
    """The person who runs edge_rt can mend this."""

    exit_code = 2


class ConfigError(OperatorError):
    """The configuration file is wrong."""


class CredentialError(OperatorError):
    """A key or password is missing, unreadable, too widely readable or wrong."""


class InputError(OperatorError):
    """A file or argument that a command was given cannot be used."""


class PublisherError(EdgeRtError):
    """Whoever made the model bundle must mend this."""

    exit_code = 3


class ManifestError(PublisherError):
    """The manifest is malformed, or disagrees with the files or tensors beside it."""


class ModelError(PublisherError):
    """The model file cannot be loaded or run by the engine in use."""


class HardwareError(EdgeRtError):
    """A device did not do what it should."""

    exit_code = 4


class SensorError(HardwareError):
    """The accelerometer is absent, silent or talking nonsense."""


class CameraError(HardwareError):
    """The camera is absent, silent or delivers no decodable frame."""


class StorageError(HardwareError):
    """State cannot be read or written: disk full, read-only or damaged."""


class DaemonError(EdgeRtError):
    """The daemon is not running, refused a command, or failed at it."""

    exit_code = 5


class DeniedError(DaemonError):
    """The daemon runs, or may run, but this user may not ask it."""


def in_words(error: BaseException) -> str:
    """One line for whoever reads why something ended: ours says it all, another names its kind."""
    return str(error) if isinstance(error, EdgeRtError) else f"{type(error).__name__}: {error}"


_BY_NAME: dict[str, type[EdgeRtError]] = {
    kind.__name__: kind
    for kind in (
        OperatorError,
        ConfigError,
        CredentialError,
        InputError,
        PublisherError,
        ManifestError,
        ModelError,
        HardwareError,
        SensorError,
        CameraError,
        StorageError,
        DaemonError,
        DeniedError,
    )
}


def error_from(kind: str, message: str) -> EdgeRtError:
    """The error that another process of ours reported; an unknown kind is its bug: DaemonError."""
    return _BY_NAME.get(kind, DaemonError)(message)
