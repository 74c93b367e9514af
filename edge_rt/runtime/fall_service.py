"""The fall pipeline's thread: blocks from the reader, commands, time-outs; one item at a time.

Nothing in this thread waits for a disk, a socket or another process. Time-outs run on the samples'
clock while hops come, and on ours while they do not, for whatever reason.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple

from edge_rt.bundle import Bundle
from edge_rt.core.errors import DaemonError
from edge_rt.core.fall import OPEN, Event, FallRules, State
from edge_rt.core.hop import Hop
from edge_rt.core.telemetry import FallTotals
from edge_rt.core.types import Accelerometer, Announce, SampleBlock
from edge_rt.falls.pipeline import Announcement, FallPipeline, Scorer
from edge_rt.runtime.accelerometer import AccelerometerReader
from edge_rt.runtime.fall_sensor import FallSensor

log = logging.getLogger(__name__)

TURN_S = 0.1
QUIET_S = 1.0  # without a hop for so long, our clock stands in for the samples'
KEEP_S = 1.0  # a cancel window is saved this often: a power cut gives no more of it back
# Blocks waiting for the pipeline: 256 FIFO bursts are several seconds. Beyond that the newest are
# dropped and counted; the clock sees a gap.
MAX_WAITING = 256
COMMAND_TIMEOUT_S = 2.0
_REFUSED = "edge-rt is stopping and could not record it; ask again when it runs"

# Sees each block and its hops after the decisions on them were told. Returns at once, never raises.
Tap = Callable[[SampleBlock, Sequence[Hop]], None]


class NextModel(NamedTuple):
    """Another model for the pipeline, opened and warmed up, and who announces in its name."""

    bundle: Bundle
    rules: FallRules
    announce: Announce
    lost_s: float


_Item = (
    tuple[Literal["block"], SampleBlock, None]
    | tuple[Literal["sensor"], tuple[str, str], None]
    | tuple[Literal["command"], tuple[Event, str], Future[dict[str, Any]]]
    | tuple[Literal["restart"], None, Future[dict[str, Any]]]
    | tuple[Literal["swap"], NextModel, Future[dict[str, Any]]]
)


class FallService:
    """Runs in a thread of its own between `start` and `close`.

    on_change  called with the machine's saved state whenever that has changed, and while a cancel
               window runs
    lost_s     without a usable sample for so long the sensor counts as lost
    speed      how many seconds of the source's clock pass in one of ours (replays may hurry)
    asleep_s   how long ago, by our clock, the restored state was saved
    instrument what the sensor says of itself, JSON-able; for the status
    sensor     its state until something comes of it; "off" is never missed
    """

    def __init__(
        self,
        pipeline: FallPipeline,
        source: Accelerometer,
        announce: Announce,
        on_change: Callable[[dict[str, Any]], None],
        monotonic: Callable[[], float],
        *,
        lost_s: float,
        speed: float = 1.0,
        asleep_s: float = 0.0,
        instrument: Callable[[], dict[str, Any]] = dict,
        sensor: Literal["starting", "off"] = "starting",
    ) -> None:
        self._pipeline = pipeline
        self._announce = announce
        self._on_change = on_change
        self._monotonic = monotonic
        self._lost_s = lost_s
        self._speed = speed
        self._asleep_s = asleep_s
        self._instrument = instrument
        self._inbox: queue.Queue[_Item] = queue.Queue(maxsize=MAX_WAITING)
        self._reader = AccelerometerReader(source, self._on_block, self._on_lost, self._on_end)
        self._problem = ""
        now_s = monotonic()
        self._sensor = FallSensor(sensor, now_s)
        self._turned_s = self._begun_s = self._block_s = self._saved_s = now_s
        # Our clock and the machine's when hops last moved it.
        self._hop_s, self._machine_s, self._hops = now_s, pipeline.now_s, pipeline.hops
        self._state = pipeline.machine.state
        self._dropped = self._blocks = 0
        self._watches = False
        self._tap: Tap | None = None
        self._beside = ""  # the incident of a call for help that went past the thread
        self._stopping, self._ended = threading.Event(), threading.Event()
        self._late = threading.Lock()  # between those who go past the thread, or come after it
        self._thread = threading.Thread(target=self._run, name="falls", daemon=True)

    # ---- from any thread ----

    def start(self) -> None:
        """Begin to read and judge."""
        now_s = self._monotonic()
        self._turned_s = self._begun_s = self._block_s = now_s
        self._hop_s = now_s - self._asleep_s
        self._thread.start()
        self._reader.start()

    def close(self) -> None:
        """Stop; an open incident stays saved."""
        self._reader.close()
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def command(self, event: Event, by: str) -> dict[str, Any]:
        """Cancel, resolve, help_now, arm, disarm. Raises WrongState or DaemonError.

        A call for help is answered even if the pipeline hangs; all are after `close`, too, for as
        long as what they bring about can be recorded.
        """
        answer: Future[dict[str, Any]] = Future()
        try:
            if not self._ended.is_set():
                self._inbox.put(("command", (event, by), answer), timeout=COMMAND_TIMEOUT_S)
            # Looked at once more: what came in before the end is still taken by the thread.
            if self._ended.is_set() and answer.cancel():
                return self._obey_late(event, by)
            return answer.result(COMMAND_TIMEOUT_S)
        except Exception as error:  # a call for help is told whatever goes wrong in there
            hangs = isinstance(error, queue.Full | TimeoutError)
            if event is Event.HELP:
                log.exception("falls: a call for help goes past the fall pipeline")
                fault = "the fall pipeline hangs" if hangs else f"{type(error).__name__}: {error}"
                return self._call_beside(by, fault)
            if not hangs:
                raise
            answer.cancel()  # who was told that it failed does not have it done later
            raise DaemonError("the fall pipeline did not answer; see edge-rt status") from None

    def called(self, incident: str) -> None:
        """An alarm was announced past the machine, which takes it over, to be resolved there."""
        self._beside = incident

    def restart(self) -> dict[str, Any]:
        """Begin the detector's window anew; an open incident stays. Raises DaemonError."""
        answer: Future[dict[str, Any]] = Future()
        try:
            self._inbox.put(("restart", None, answer), timeout=COMMAND_TIMEOUT_S)
            return answer.result(COMMAND_TIMEOUT_S)
        except (queue.Full, TimeoutError):
            raise DaemonError("the fall pipeline did not answer; see edge-rt status") from None

    def swap(self, model: NextModel) -> Future[dict[str, Any]]:
        """Go on with another model between two blocks; an open incident stays as it is.

        The future's result says after which window, and how long the thread was busy: {t_s, hops,
        took_ms}. It fails with ManifestError for a bundle of another task (the old one goes on),
        with DaemonError when the thread cannot take it. Cancelled in time, it does not happen.
        """
        answer: Future[dict[str, Any]] = Future()
        try:
            self._inbox.put(("swap", model, answer), timeout=COMMAND_TIMEOUT_S)
        except queue.Full:
            answer.set_exception(DaemonError("the fall pipeline hangs; see edge-rt status"))
        return answer

    def listen(self, tap: Tap | None) -> None:
        """Have the live samples and scores seen by `tap`, on the fall thread; None: nobody."""
        self._tap = tap

    def branch(self) -> Callable[[Bundle], Scorer]:
        """Begins a second detector beside the live one; for a tap only, on the fall thread."""
        return self._pipeline.branch()

    def set_rules(self, rules: FallRules) -> None:
        """Other rules, live; frozen, so that no step sees half of them."""
        self._pipeline.set_rules(rules)

    def stuck_s(self) -> float:
        """How long ago the thread last turned; it does so ten times a second."""
        return self._monotonic() - self._turned_s

    def reader_stuck_s(self) -> float:
        """How long ago the thread that reads the sensor last turned."""
        return self._reader.stuck_s()

    def has_samples(self) -> bool:
        """Whether usable samples come."""
        return self._sensor.state == "ok"

    def watches(self) -> bool:
        """Whether the pipeline turns; a sensor that is absent is being looked for meanwhile."""
        return self._watches

    def status(self) -> dict[str, Any]:
        """JSON-able view for the live status."""
        return {
            "sensor": self._sensor.state,
            "sensor_detail": self._sensor.detail,
            "blocks": self._blocks,
            "blocks_dropped": self._dropped,
            "problem": self._problem,
            "instrument": self._instrument(),
            **self._pipeline.status(),
        }

    def alarm_state(self) -> tuple[str, str]:
        """The alarm machine's state, and the open incident or nothing; cheap."""
        machine = self._pipeline.machine
        return machine.state.value, machine.incident or ""

    def totals(self) -> FallTotals:
        """Running totals for telemetry."""
        totals = self._pipeline.totals()
        totals.signal["blocks_dropped"] = self._dropped
        return totals

    # ---- in the reader's thread ----

    def _on_block(self, block: SampleBlock) -> None:
        try:
            self._inbox.put_nowait(("block", block, None))
        except queue.Full:
            self._dropped += 1

    def _on_lost(self, reason: str) -> None:
        self._inbox.put(("sensor", ("lost", reason), None))

    def _on_end(self) -> None:
        self._inbox.put(("sensor", ("ended", "the recording is over"), None))

    # ---- in the thread of who asks, when the service's cannot ----

    def _call_beside(self, by: str, fault: str) -> dict[str, Any]:
        """Announce the alarm past a thread that fails; it is told of that when it turns again."""
        state, found = self.alarm_state()
        with self._late:  # several calls are one incident
            incident = found if state in OPEN else self._beside or uuid.uuid4().hex
            data = {"incident": incident, "why": {"event": Event.HELP, "by": by, "fault": fault}}
            if self._announce("fall", "alarm", data) is False:
                raise DaemonError(_REFUSED)
            self._beside = incident
        return {"state": State.ALARM.value, "problem": fault}

    def _obey_late(self, event: Event, by: str) -> dict[str, Any]:
        """The thread has ended, or takes no more than it has: the machine is moved by who asks."""
        self._thread.join(COMMAND_TIMEOUT_S)
        with self._late:
            now_s = self._monotonic()
            told = self._pipeline.command(event, self._machine_time(now_s), by)
            answers = [self._announce(*one) for one in told]
            self._keep(now_s)
        if False in answers:
            raise DaemonError(_REFUSED)
        return self._pipeline.status()

    # ---- in the service's thread ----

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception as error:  # one bad block may not end the watch over a person
                log.exception("falls: unexpected failure")
                self._problem = f"{type(error).__name__}: {error}"
        self._take_over()
        self._ended.set()
        with contextlib.suppress(queue.Empty):
            while True:  # what it was told before its end is done; samples are not looked at
                match self._inbox.get_nowait():
                    case ("command", (event, by), answer):
                        self._obey(event, by, answer, self._monotonic())
        self._keep(self._monotonic())

    def _turn(self) -> None:
        try:
            item = self._inbox.get(timeout=TURN_S)
        except queue.Empty:
            item = None
        now_s = self._turned_s = self._monotonic()
        self._take_over()
        # First what time alone has brought about: a block may move the clock on.
        if now_s - self._hop_s > QUIET_S:
            self._tell(self._pipeline.tick(self._machine_time(now_s)))
        try:
            self._take(item, now_s)
            self._watches = True
        finally:
            self._keep(now_s)

    def _take(self, item: _Item | None, now_s: float) -> None:
        match item:
            case ("block", block, _):
                self._blocks += 1
                self._block_s = now_s
                self._tell(self._pipeline.push(block))
                self._note_hops(now_s)
                if self._sensor.wants_reset(self._pipeline.broken, now_s):
                    self._reader.reopen()
                self._show(block)
            case ("command", (event, by), answer):
                self._obey(event, by, answer, now_s)
            case ("restart", _, answer):
                log.warning("falls: the detector begins anew, as somebody asked for")
                self._pipeline.restart()
                answer.set_result(self._pipeline.status())
            case ("swap", model, answer):
                self._swap(model, answer)
            case ("sensor", (state, detail), _):
                self._sensor.becomes(self._announce, state, detail)
        if self._sensor.state in ("ok", "starting"):
            self._miss_hops(now_s)

    def _note_hops(self, now_s: float) -> None:
        if self._pipeline.hops != self._hops:
            self._hops = self._pipeline.hops
            self._hop_s, self._machine_s = now_s, self._pipeline.now_s
            if not self._pipeline.broken:
                self._sensor.tells_the_truth(self._announce)

    def _miss_hops(self, now_s: float) -> None:
        """A sensor whose samples cannot be used is as lost as a silent one."""
        if now_s - max(self._hop_s, self._begun_s) <= self._lost_s:
            return
        what = "no samples" if now_s - self._block_s > self._lost_s else "no usable samples"
        self._sensor.becomes(self._announce, "lost", f"{what} for {self._lost_s:g} s")

    def _machine_time(self, now_s: float) -> float:
        """The machine's clock, had hops gone on."""
        return self._machine_s + (now_s - self._hop_s) * self._speed

    def _obey(self, event: Event, by: str, answer: Future[dict[str, Any]], now_s: float) -> None:
        if not answer.set_running_or_notify_cancel():
            return  # who asked has been told that it failed
        try:
            self._tell(self._pipeline.command(event, self._machine_time(now_s), by))
            answer.set_result(self._pipeline.status())
        except Exception as error:  # whoever asked has to hear of it, a bug of ours included
            answer.set_exception(error)

    def _take_over(self) -> None:
        if self._beside:
            with self._late:
                incident, self._beside = self._beside, ""
            self._pipeline.take_over(incident)

    def _show(self, block: SampleBlock) -> None:
        tap = self._tap
        if tap is None:
            return
        try:
            tap(block, self._pipeline.latest)
        except Exception:  # who only looks on may not disturb the watch
            log.exception("falls: what looks on failed, and is left out")
            self._tap = None

    def _swap(self, model: NextModel, answer: Future[dict[str, Any]]) -> None:
        if not answer.set_running_or_notify_cancel():
            return  # who asked has given up, and goes by the old model
        begun_s = time.perf_counter()
        try:
            self._pipeline.swap(model.bundle, model.rules)
        except Exception as error:  # whoever asked has to hear of it; the old model goes on
            answer.set_exception(error)
            return
        self._announce, self._lost_s = model.announce, model.lost_s
        took_ms = round(1e3 * (time.perf_counter() - begun_s), 3)
        t_s = self._pipeline.status()["t_s"]
        answer.set_result({"t_s": t_s, "hops": self._pipeline.hops, "took_ms": took_ms})

    def _tell(self, announcements: list[Announcement]) -> None:
        for kind, what, data in announcements:
            if (kind, what) == ("device", "sensor_lost"):  # one loss is told once, whoever found it
                why = {k: v for k, v in data.items() if k != "sensor"}
                self._sensor.becomes(self._announce, "lost", **why)
            elif (kind, what) != ("device", "sensor_back"):  # the next hop says so
                self._announce(kind, what, data)

    def _keep(self, now_s: float) -> None:
        """Save a state that has changed, silent changes included."""
        before, self._state = self._state, self._pipeline.machine.state
        running = self._state is State.PREALARM and now_s - self._saved_s >= KEEP_S
        if self._state is not before or running:
            self._saved_s = now_s
            self._on_change(self._pipeline.save())
