"""The daemon's half of face unlock: keeps a worker alive, and decides on what it has seen.

The worker (edge_rt.runtime.face_worker) owns camera, models and templates and may hang, crash or
leak. Attempts, lockout, events and the lock stay here, where a native fault cannot reach them.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal

import msgspec

from edge_rt.core.errors import DaemonError, error_from
from edge_rt.core.types import Announce
from edge_rt.core.unlock import LIVENESS_NOT_CHECKED, UnlockMachine, check_actuator
from edge_rt.runtime.actuators import Lock
from edge_rt.runtime.face_judge import Arming, FaceJudge
from edge_rt.runtime.face_messages import (
    MAX_LINE_BYTES,
    Answer,
    Arm,
    Ask,
    Beat,
    CameraOpened,
    CameraOpening,
    CameraState,
    Compare,
    Compared,
    Failed,
    FromWorker,
    Ready,
    Seen,
    ToWorker,
    Unlocked,
)
from edge_rt.runtime.link import Child, Link

log = logging.getLogger(__name__)

WORKER_MODULE = "edge_rt.runtime.face_worker"
TURN_S = 0.2
RESTART_S = 5.0  # a worker is killed, not asked
# Loading models on the slowest board, before the first beat; opening a camera may take as long.
START_S = 20.0
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # a worker that always crashes must not eat the CPU
AWAY_S = 1.0  # a turn that took longer: the disk stalled, and what the worker said waits to be read
STEADY_S = 60.0  # alive for so long: the next fault starts at the shortest back-off again

# What the service's queue carries: (worker generation, message), the worker's end, or a request.
_Item = (
    tuple[Literal["from", "gone"], int, Any]
    | tuple[Literal["ask", "arm", "restart", "compare"], Any, Any]
)


class FaceService:
    """Runs in a thread of its own between `start` and `close`."""

    def __init__(
        self,
        arguments: Sequence[str],
        machine: UnlockMachine,
        announce: Announce,
        lock: Lock,
        monotonic: Callable[[], float],
        *,
        hang_s: float,
        memory_mb: float,
        arming: Arming,
        module: str = WORKER_MODULE,
    ) -> None:
        """arguments: the worker's command line; arming: whether to look, and where that is kept.

        Raises ConfigError for a lock without liveness.
        """
        check_actuator(lock.name, LIVENESS_NOT_CHECKED)
        self._arguments = list(arguments)
        self._judge = FaceJudge(machine, announce, lock, monotonic)
        self._announce = announce
        self._monotonic = monotonic
        self._hang_s = hang_s
        self._memory_mb = memory_mb
        self._arming, self._armed = arming, arming.load()
        self._module = module
        # Frames come at most at the camera's rate and are judged in microseconds; a full queue
        # blocks the reader, then the worker's send, which then counts as the worker's hang.
        self._inbox: queue.Queue[_Item] = queue.Queue(maxsize=256)
        self._pending: dict[int, Future[dict[str, Any]]] = {}
        self._next_id = 0
        self._generation = 0
        self._child: Child | None = None
        self._link: Link[FromWorker] | None = None
        self._ready: Ready | None = None
        self._beat: Beat | None = None
        self._opened: CameraOpened | None = None
        self._compare: Compare | None = None
        self._compared: Compared | None = None
        self._problem = self._camera_detail = ""
        self._camera_lost = False  # and told
        self._opening = False
        self._heard_s = self._born_s = self._retry_s = 0.0
        self._turned_s = monotonic()
        self._faults = 0
        self._restarts = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faces", daemon=True)

    # ---- from any thread ----

    def start(self) -> None:
        """Start the worker and watch over it."""
        self._turned_s = self._monotonic()
        self._thread.start()

    def close(self) -> None:
        """End the worker."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def ask(self, command: str, args: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Run a worker command. Raises the worker's error, or DaemonError when there is none."""
        answer: Future[dict[str, Any]] = Future()
        self._post(("ask", (command, args), answer))
        try:
            return answer.result(timeout_s)
        except TimeoutError:
            raise DaemonError("the face worker did not answer; see edge-rt status") from None

    def arm(self, on: bool) -> None:
        """Look, or close the camera."""
        self._post(("arm", on, None))

    def stuck_s(self) -> float:
        """How long ago the watching thread last turned; what the worker does is no matter."""
        return self._monotonic() - self._turned_s

    def restart(self) -> None:
        """End the worker; a new one starts at once. Raises DaemonError."""
        answer: Future[dict[str, Any]] = Future()
        self._post(("restart", None, answer))
        try:
            answer.result(RESTART_S)
        except TimeoutError:
            raise DaemonError("the face service did not answer; see edge-rt status") from None

    def compare(self, asked: Compare | None) -> None:
        """Have the worker, and each that follows on it, run a candidate beside the live embedder.

        None: no more; `replace` ends it as well.
        """
        self._post(("compare", asked, None))

    def compared(self) -> Compared | None:
        """What was said last of the candidate that runs now."""
        return self._compared

    def replace(self, arguments: Sequence[str]) -> None:
        """Replace the worker by one with another command line, at once."""
        self._post(("restart", list(arguments), None))

    def _post(self, item: _Item) -> None:
        try:
            self._inbox.put(item, timeout=1.0)
        except queue.Full:
            raise DaemonError("the face service is overloaded; see edge-rt status") from None

    def status(self) -> dict[str, Any]:
        """JSON-able view for the live status."""
        child, ready, beat = self._child, self._ready, self._beat
        seen, machine = self._judge.seen, self._judge.machine
        return {
            "armed": self._armed,
            "worker": "running" if ready else ("starting" if child else "down"),
            "pid": child.pid if child else None,
            "restarts": self._restarts,
            "problem": self._problem or self._judge.problem or self._arming.problem,
            "engine": ready.engine if ready else None,
            "models": ready.models if ready else {},
            "persons": ready.persons if ready else None,
            "camera": beat.camera if beat else "off",
            "camera_detail": self._camera_detail,
            "camera_format": self._opened.found if self._opened else "",
            "camera_differences": self._opened.differences if self._opened else [],
            "asleep": beat.asleep if beat else False,
            "frames": beat.frames if beat else 0,
            "dropped": beat.dropped if beat else 0,
            "latency": beat.latency if beat else {},
            "seen": seen.verdict if seen else None,
            "seen_reason": seen.reason if seen else "",
            "state": machine.state.value,
            "lockout_s": round(machine.lockout_s(self._monotonic()), 1),
            "last": self._judge.last,
            "liveness": LIVENESS_NOT_CHECKED,
        }

    # ---- in the service's thread ----

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception:  # face unlock may fail; the thread that restarts it may not
                log.exception("faces: unexpected failure; restarting the worker")
                self._fault("internal error, see the log")
        self._drop_worker()

    def _turn(self) -> None:
        now_s = self._turned_s = self._monotonic()
        if self._child is None and now_s >= self._retry_s:
            self._spawn(now_s)
        with contextlib.suppress(queue.Empty):
            self._take(self._inbox.get(timeout=TURN_S))
        after_s = self._monotonic()
        if after_s - now_s > AWAY_S:
            self._heard_s = after_s
        self._watch(after_s)
        self._arming.turn(now_s)

    def _spawn(self, now_s: float) -> None:
        self._generation += 1
        child = Child(self._module, self._arguments)
        link: Link[FromWorker] = Link(child.connection, FromWorker, MAX_LINE_BYTES)
        self._child, self._link = child, link
        self._ready = self._beat = None
        self._opening = False
        self._born_s = self._heard_s = now_s
        threading.Thread(
            target=self._read, args=(self._generation, link), name="faces-reader", daemon=True
        ).start()
        if self._armed:
            self._tell(Arm(True))
        if self._compare is not None:
            so_far = self._compared.seen if self._compared else self._compare.seen
            self._tell(msgspec.structs.replace(self._compare, seen=so_far))

    def _read(self, generation: int, link: Link[FromWorker]) -> None:
        try:
            while (message := link.receive()) is not None:
                self._inbox.put(("from", generation, message))
        except Exception as error:  # nonsense of any kind: the worker is as good as gone
            log.error("faces: the worker sent nonsense: %s", error)
        finally:
            self._inbox.put(("gone", generation, None))

    def _take(self, item: _Item) -> None:
        match item:
            case ("from", generation, message) if generation == self._generation:
                self._heard_s = self._monotonic()
                self._hear(message)
            case ("gone", generation, _) if generation == self._generation and self._child:
                code = self._child.wait(0.5)
                self._fault(self._problem or f"the worker ended ({_describe(code)})")
            case ("ask", (command, args), answer):
                self._submit(command, args, answer)
            case ("arm", on, _):
                self._armed = on
                self._tell(Arm(on))
                if not on:
                    self._judge.disarmed()
                self._arming.keep(on, self._turned_s)
            case ("restart", arguments, answer):
                self._arguments = arguments or self._arguments
                if arguments is not None:
                    self._compare = self._compared = None
                log.warning("faces: the worker is replaced, as somebody asked for")
                self._problem, self._retry_s = "restarted by a command", 0.0
                self._restarts += 1
                self._drop_worker()
                if answer is not None:
                    answer.set_result({})
            case ("compare", asked, _):
                self._compare, self._compared = asked, None
                self._tell(asked or Compare(""))
            case _:
                pass  # the last words of a worker that was already replaced

    def _hear(self, message: FromWorker) -> None:
        self._opening = isinstance(message, CameraOpening)
        match message:
            case Seen():
                self._camera(lost=False)  # by another worker than the one that lost it, say
                person = self._judge.judge(message) if self._armed else None
                if self._compare is not None and person is not None:
                    self._tell(Unlocked(person))
            case Beat():
                self._beat = message
            case Ready():
                self._ready = message
                self._problem = ""
                log.info("faces: worker ready, %s, %d persons", message.engine, message.persons)
            case CameraState():
                self._camera_detail = message.detail
                self._camera(message.lost)
            case CameraOpened():
                self._opened = message
                log.info("camera: %s", message.found)
                for line in message.differences:
                    log.warning("camera: %s", line)
            case Answer():
                self._resolve(message)
            case Compared() if self._compare is not None:
                if message.folder == self._compare.folder:
                    self._compared = message
            case Compared():
                pass  # of one that is not wanted any more
            case Failed():
                self._problem = message.message
                log.error("faces: %s", message.message)

    def _camera(self, lost: bool) -> None:
        if lost == self._camera_lost:
            return
        self._camera_lost = lost
        detail = self._camera_detail if lost else ""
        what = "sensor_lost" if lost else "sensor_back"
        self._announce("device", what, {"sensor": "camera", "detail": detail})

    def _submit(self, command: str, args: dict[str, Any], answer: Future[dict[str, Any]]) -> None:
        if self._ready is None:
            answer.set_exception(
                DaemonError(f"the face worker is not ready ({self._problem or 'starting'})")
            )
            return
        self._next_id += 1
        self._pending[self._next_id] = answer
        self._tell(Ask(self._next_id, command, args))

    def _resolve(self, message: Answer) -> None:
        answer = self._pending.pop(message.id, None)
        if answer is None:
            return
        if message.result is None:
            answer.set_exception(error_from(message.kind, message.message))
            return
        for what in ("enrolled", "removed"):
            if what in message.result:
                self._announce("face", what, {"outcome": what, "person": message.result[what]})
        if self._ready is not None and "persons" in message.result:
            count = len(message.result["persons"])
            self._ready = msgspec.structs.replace(self._ready, persons=count)
        answer.set_result(message.result)

    def _tell(self, message: ToWorker) -> None:
        if self._link is None:
            return
        try:
            self._link.send(message)
        except OSError as error:
            self._fault(f"the worker does not listen ({error})")

    # ---- supervision ----

    def _watch(self, now_s: float) -> None:
        if self._child is None:
            return
        slow = self._ready is None or self._opening
        patience_s = max(self._hang_s, START_S) if slow else self._hang_s
        if now_s - self._heard_s > patience_s:
            self._fault(f"the worker hung: nothing heard for {patience_s:g} s")
        elif (resident := self._child.resident_mb()) > self._memory_mb:
            self._fault(f"the worker grew to {resident:.0f} MB, over {self._memory_mb:g}")
        elif now_s - self._born_s > STEADY_S:
            self._faults = 0

    def _fault(self, problem: str) -> None:
        now_s = self._monotonic()
        delay_s = BACKOFF_S[min(self._faults, len(BACKOFF_S) - 1)]
        self._faults += 1
        self._restarts += 1
        self._problem = problem
        self._retry_s = now_s + delay_s
        log.error("faces: %s; a new one starts in %g s", problem, delay_s)
        self._drop_worker()

    def _drop_worker(self) -> None:
        child, self._child, self._link, self._ready = self._child, None, None, None
        self._generation += 1  # what its reader still says is no longer heard
        if child is not None:
            child.kill()
        for answer in self._pending.values():
            answer.set_exception(DaemonError(f"the face worker was replaced ({self._problem})"))
        self._pending.clear()


def _describe(code: int | None) -> str:
    if code is None:
        return "still exiting"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
