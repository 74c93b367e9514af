"""The daemon as a process: signals, systemd, the watchdog, and the end."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from edge_rt.adapters.systemd import Notifier
from edge_rt.core.crash_loop import BARE_S, HEALTHY_S, Mode
from edge_rt.core.errors import EdgeRtError, in_words
from edge_rt.core.status_line import status_line
from edge_rt.core.turning import late
from edge_rt.runtime.compose_updates import make_trier
from edge_rt.runtime.config_file import load_config
from edge_rt.runtime.daemon import Daemon
from edge_rt.runtime.logs import set_up

log = logging.getLogger(__name__)

LOOK_S = 1.0
FIRST_LOOK_S = 0.02  # from the start on until falls are watched
LAST_WORDS_S = 1.0  # the log and the state folder each have so long when the end cannot wait
# Threads that serve one peer, command or connection, by how their names begin.
OF_ONE_REQUEST = ("control-peer", "command-", "mqtt-connect", "child-stderr")
START_MARGIN_S = 60.0  # a start that waits first asks for this much more


def run(config_path: Path) -> int:
    """Run until SIGTERM or SIGINT. Raises ConfigError and what `Daemon.start` raises.

    Exit code EX_TEMPFAIL when a daemon without models should be started anew, EX_IOERR when an
    output may have been left on: the service then turns it off (outputs_off).
    """
    notifier = Notifier()
    try:
        config = load_config(config_path)
        # A watchdog's SIGABRT and a native fault leave the stack of every thread in the log.
        faulthandler.enable()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        return _Process(Daemon(config), notifier, stop).run()
    except EdgeRtError as error:
        notifier.failed(str(error), error.exit_code)
        raise


class _Process:
    def __init__(self, daemon: Daemon, notifier: Notifier, stop: threading.Event) -> None:
        self._daemon = daemon
        self._notifier = notifier
        self._stop = stop
        self._died = ""  # which thread, and of what
        # Twice within what the watchdog allows (sd_watchdog_enabled(3)).
        period_s = notifier.watchdog_s / 2
        self._look_s = min(LOOK_S, period_s) if period_s else LOOK_S

    def run(self) -> int:
        threading.excepthook = self._thread_died
        with ExitStack() as last:
            try:
                forks = self._daemon.begin()
                # Before the first thread, which the log has: trials are forks of what is now.
                trier = last.enter_context(make_trier(self._daemon.config, forks))
                set_up()
                self._daemon.start(trier, self._pause)
                code = self._watch()
            except Exception as error:  # a library that cannot be loaded, as well
                self._daemon.failed(in_words(error))
                self._close()
                if isinstance(error, EdgeRtError) and self._daemon.left_on():
                    error.exit_code = os.EX_IOERR  # what a person must mend can wait, a siren not
                raise
            except BaseException:  # whatever it is, outputs come to rest before it goes on
                self._close()
                raise
            self._close()
            return os.EX_IOERR if self._daemon.left_on() else code

    def _close(self) -> None:
        self._notifier.stopping()
        self._daemon.close()
        for problem in self._daemon.left_on():
            log.critical("%s; ending with code %d, to have it turned off", problem, os.EX_IOERR)

    def _pause(self, seconds: float) -> None:
        self._notifier.more_time(seconds + START_MARGIN_S)
        self._notifier.status(f"waiting {seconds:g} s after starts that failed")
        self._stop.wait(seconds)

    def _watch(self) -> int:
        while not self._daemon.watches():
            if self._stop.wait(FIRST_LOOK_S):
                return self._stopped()
            self._check()
        self._notifier.ready(self._words())
        ready_s = time.monotonic()
        proving: threading.Thread | None = None
        while not self._stop.wait(self._look_s):
            self._check()
            # Only here: a timer of its own would feed a watchdog over a daemon that hangs.
            self._notifier.turned(self._words())
            up_s = time.monotonic() - ready_s
            bare = self._daemon.mode is Mode.BARE
            if bare and up_s > BARE_S and not self._daemon.alarm_open():
                log.warning("without models for %g s; leaving to try them again", BARE_S)
                self._daemon.try_again()
                return os.EX_TEMPFAIL
            if up_s > HEALTHY_S and not bare and proving is None:
                # On a thread of its own: a card that stalls must not keep the watchdog unfed.
                proving = threading.Thread(target=self._daemon.healthy, name="proved", daemon=True)
                proving.start()
        return self._stopped()

    def _stopped(self) -> int:
        self._daemon.stopped()
        return 0

    def _thread_died(self, end: threading.ExceptHookArgs) -> None:
        """No thread of ours ends by an exception; without the loop that it was, something would go
        on unwatched. What serves one request is not missed."""
        thread = end.thread.name if end.thread is not None else "a thread"
        error = end.exc_value or end.exc_type()
        log.critical("%s died", thread, exc_info=(end.exc_type, error, end.exc_traceback))
        if not thread.startswith(OF_ONE_REQUEST):
            self._died = f"{thread} died: {in_words(error)}"

    def _check(self) -> None:
        if self._died:
            self._leave(self._died)
        found = late(self._daemon.stuck_s())
        if found:
            self._leave(", ".join(map(str, found)))

    def _leave(self, reason: str) -> None:
        """A thread inside native code cannot be ended; a process can, and what was open is saved.
        Whoever supervises this process starts it anew."""
        log.critical("%s; leaving", reason)
        self._notifier.failed(reason, os.EX_SOFTWARE)
        # The disk may be what is stuck.
        last = threading.Thread(target=self._daemon.failed, args=(reason,), daemon=True)
        last.start()
        last.join(LAST_WORDS_S)
        time.sleep(LAST_WORDS_S)  # the log has a thread of its own
        os._exit(os.EX_SOFTWARE)

    def _words(self) -> str:
        if not self._notifier.listened:
            return ""
        try:
            return status_line(self._daemon.status())
        except Exception:  # words for a person; what is watched over does not depend on them
            log.exception("the status line failed")
            return "status unknown, see the log"
