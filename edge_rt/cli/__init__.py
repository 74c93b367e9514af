"""The command line: one module a command group, imported only when that command runs.

Exit codes: 0 done, 1 a check failed, 2 usage or operator error, 3 bad model bundle, 4 hardware,
5 daemon, 130 interrupted, 141 the reader of our output went away. Results go to stdout; an error
is one line on stderr, `edge-rt: <what and remedy>`, or with --json the same as
`{"error": {"kind", "message", "exit_code"}}`. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from edge_rt import __version__
from edge_rt.core.errors import EdgeRtError, StorageError

INTERRUPTED, BROKEN_PIPE = 128 + 2, 128 + 13  # as a shell reports SIGINT and SIGPIPE
# What a file that stdout was sent to can run into (write(2)). What commands themselves write is
# guarded where it is written.
UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

# heading -> command -> (module:object below edge_rt.cli, one line of help). The help stands here
# so that `edge-rt --help` imports none of the commands.
SECTIONS = {
    "Try it": {
        "demo": ("demo:demo", "Detect a fall and unlock for a face; no hardware needed."),
        "replay": ("replay:replay", "Run a recording through the live pipelines."),
    },
    "Run it": {
        "run": ("daemon:run", "Run the daemon in the foreground."),
        "status": ("daemon:status", "Show what the running daemon sees and does."),
        "events": ("daemon:events", "List or follow the event log."),
        "cancel": ("daemon:cancel", "Cancel a pre-alarm: the person is all right."),
        "resolve": ("daemon:resolve", "Close an alarm: somebody has looked after it."),
        "help-now": ("daemon:help_now", "Raise the alarm at once."),
        "arm": ("daemon:arm", "Arm fall detection or face unlock."),
        "disarm": ("daemon:disarm", "Disarm fall detection or face unlock."),
    },
    "Faces": {
        "face": ("face:face", "Enrol, verify, list and remove persons."),
    },
    "Models": {
        "model": ("model:model", "Inspect and verify bundles; see what runs, roll back."),
    },
    "Fleet": {
        "fleet": ("fleet:fleet", "Receive devices' events over MQTT; publish models."),
        "provision": ("provision:provision", "Make and sign the fleet's certificates."),
    },
    "Measure": {
        "evaluate": ("evaluate:evaluate", "Score models on labelled recordings and pictures."),
        "bench": ("bench:bench", "Measure latency, cold start and memory on this machine."),
    },
    "Look after it": {
        "doctor": ("care:doctor", "Check engine, models, sensors, disk, broker and updates."),
        "calibrate": ("sensor:calibrate", "Calibrate the accelerometer by gravity."),
        "sensor-setup": ("sensor:sensor_setup", "As root: set up an IIO accelerometer."),
        "backup": ("care:backup", "Save events, templates and counters to one file."),
        "restore": ("care:restore", "Bring a backup's state back."),
        "factory-reset": ("care:factory_reset", "Forget events, faces and keys; keep the config."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class _Commands(click.Group):
    """A group that knows its commands from `SECTIONS` and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            near = difflib.get_close_matches(cmd_name, COMMANDS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"there is no command {cmd_name!r}{hint}", ctx)
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, entry[1]) for name, entry in commands.items()])


@click.group("edge-rt", cls=_Commands)
@click.version_option(__version__, prog_name="edge-rt", message="%(prog)s %(version)s")
def cli() -> None:
    """Fall detection and face unlock on small devices, with quantized TFLite models."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. The one place where errors become lines."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    # OpenCV and FFmpeg comment on damaged files; our own line says it once. See their manuals.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        # Not click's own main(): that one hides broken pipes and prints errors its own way.
        with cli.make_context("edge-rt", words) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except EdgeRtError as error:
        return _fail(type(error).__name__, str(error), error.exit_code, as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _fail("UsageError", _usage(error), error.exit_code, as_json)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is not None:
            raise
        _drop_output()
        message = f"the output cannot be written ({error.strerror}); free or mend the disk"
        return _fail(StorageError.__name__, message, StorageError.exit_code, as_json)
    return 0


def _drop_output() -> None:
    """The interpreter flushes stdout once more at exit; give it somewhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message}; see {context.command_path if context else 'edge-rt'} --help"


def _fail(kind: str, message: str, exit_code: int, as_json: bool) -> int:
    line = " ".join(message.split())  # whatever a library put into the message: one line
    if as_json:
        import msgspec

        report = {"error": {"kind": kind, "message": line, "exit_code": exit_code}}
        click.echo(msgspec.json.encode(report), err=True)
    else:
        click.echo(f"edge-rt: {line}", err=True)
    return exit_code
