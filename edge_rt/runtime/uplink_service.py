"""The uplink: event log -> MQTT, receipts -> event log, on a thread of its own.

The pipelines never wait for it: they announce to the recorder, and the recorder only wakes us.
"""

from __future__ import annotations

import logging
import random as random_module
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec

from edge_rt import __version__
from edge_rt.adapters import mqtt
from edge_rt.adapters.eventreader import EventReader
from edge_rt.core.errors import InputError, StorageError
from edge_rt.core.log_schema import Stored
from edge_rt.core.patience import Patience
from edge_rt.core.uplink import Rules, Uplink
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.uplink_link import Backoff, Event, Link, State
from edge_rt.core.uplink_wire import ReceiptMessage, Status, Topics, decode_receipt
from edge_rt.core.wire import Lane
from edge_rt.runtime.alarm_latency import AlarmLatency
from edge_rt.runtime.letters import Handler, Inbox, Letter, Outbox
from edge_rt.runtime.news import News
from edge_rt.runtime.receipt_writer import ReceiptWriter
from edge_rt.runtime.recorder import Recorder
from edge_rt.runtime.uplink_connection import connection

log = logging.getLogger(__name__)

# A wake-up that got lost, and a log that could not be read, cost this at most.
IDLE_S = 5.0
# The recorder is at a failing disk already; asking it more often helps nobody.
READ_AGAIN_S = 0.5
# The clean end waits so long for the broker to take `stopped`.
GOODBYE_S = 2.0
# One refusal of each kind is an event; more of them only count.
MAX_REFUSALS_TOLD = 32

Unheard = Callable[[str], None]


class UplinkService:
    """Owns the connection. start(), stop() and status() may be called from any thread.

    boot_id    as in the events; alarms of this boot count for the latency in status()
    log_path   the event log that `recorder` writes
    handlers   who gets what else is sent to the device, by topic filter without the base
    greetings  what to say at each connect, besides `online`
    unheard    called on our thread with the incident of an alarm that nobody receipted in time;
               sounds the local siren, must return at once
    """

    def __init__(
        self,
        config: MqttConfig,
        topics: Topics,
        recorder: Recorder,
        log_path: Path,
        unheard: Unheard,
        *,
        boot_id: str = "",
        handlers: Mapping[str, Handler] | None = None,
        greetings: Callable[[], Sequence[Letter]] = tuple,
        open_receipt: Callable[[bytes], ReceiptMessage] = decode_receipt,
        rules: Rules | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._topics = topics
        self._recorder = recorder
        self._unheard = unheard
        self._inbox = Inbox(topics, handlers or {})
        self._greetings = greetings
        self._open_receipt = open_receipt
        self._boot_id = boot_id
        self._clock = clock
        self._mqtt = connection(config, topics, boot_id)
        self._rules = rules or Rules(window=config.window, resend_s=config.resend_s)
        self._uplink = Uplink(self._rules)
        self._link = Link(backoff or Backoff(), random)
        self._patience = Patience(config.alarm_patience_s)
        self._reader = EventReader(log_path)
        self._logid = ""
        self._outbox = Outbox(self._mqtt.wake)
        self.post = self._outbox.put  # from any thread
        self._writer = ReceiptWriter(recorder)
        self._latency = AlarmLatency(boot_id)
        self._news = News(self._latency, self._patience, self._mqtt.wake)
        self._old_watched = False
        self._opened: Future[str] | None = None  # the log's id, from the recorder
        self._told: set[tuple[str, str]] = set()
        self._forget: Callable[[], None] = lambda: None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)
        self._counts = dict.fromkeys(
            ("published", "acked", "refused", "receipts", "bad_input", "connects"), 0
        )
        self._error = ""
        self.turned_s = clock()  # when the thread last turned
        self._session_present = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            mqtt.Connected: self._on_connected,
            mqtt.Closed: self._on_closed,
            mqtt.Acked: self._on_acked,
            mqtt.Subscribed: self._on_subscribed,
            mqtt.Received: self._on_received,
        }

    # ---- any thread ----

    def start(self) -> None:
        """Begin; listens to the recorder from now on."""
        self._forget = self._news.listen(self._recorder)
        self._thread.start()

    def stop(self, timeout_s: float = GOODBYE_S + 1.0) -> bool:
        """Say `stopped` and end; False if the thread did not come back in time."""
        self._forget()
        self._stop.set()
        if self._thread.ident is None:  # never started
            self._goodbye()
            return True
        self._mqtt.wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def alarm_awaits(self) -> bool:
        """Whether a stage of a fall was sent and is not receipted; cheap, from any thread."""
        return self._uplink.unreceipted(Lane.ALARM) > 0

    def status(self) -> dict[str, Any]:
        """Now; plain values. `error` is why there is no connection, or what was refused last."""
        uplink = self._uplink
        return {
            "state": str(self._link.state),
            "error": self._error,
            "tries": self._link.tries,
            "session_present": self._session_present,
            "window": uplink.window,
            "in_flight": uplink.in_flight,
            "awaiting_receipt": {str(lane): uplink.unreceipted(lane) for lane in Lane},
            "alarms_unheard": self._patience.waiting,
            "resent": uplink.resent,
            **self._counts,
            **self._latency.summary(),
        }

    # ---- the thread ----

    def _run(self) -> None:
        self._watch_old_alarms(IDLE_S)
        while not self._stop.is_set():
            self.turned_s = self._clock()
            try:
                self._turn()
            except StorageError as error:
                if self._error != str(error):
                    log.warning("uplink: the event log cannot be read: %s", error)
                self._error = str(error)
                self._reader.close()  # a fresh look: the file may have been replaced
                self._stop.wait(READ_AGAIN_S)
            except Exception:  # a bug here must not end alarms' only way out
                log.exception("uplink: starting over")
                self._mqtt.abort()
                self._on_closed(mqtt.Closed(False, "a bug in the uplink; see the log"))
                self._stop.wait(1.0)
        self._goodbye()

    def _turn(self) -> None:
        now = self._clock()
        self._watch_old_alarms(0.0)
        self._news.take(self._uplink, now)
        if self._link.state is State.WAITING and now >= self._link.due_s:
            self._link.step(Event.DUE, now)
            self._mqtt.open()
        if self._link.state is State.ONLINE:
            self._uplink.tick(now)
            if self._uplink.hung(now):
                self._mqtt.abort()
                self._on_closed(mqtt.Closed(False, "the broker sends no PUBACK"))
            self._send()
        for letter in self._outbox.take():
            if self._link.state is State.ONLINE:
                self._post(letter)
        self._cry_for_help(now)
        for fact in self._mqtt.poll(self._timeout_s()):
            self._handlers[type(fact)](fact)
        self._writer.write(self._logid, self._clock())

    def _timeout_s(self) -> float:
        due = [self._uplink.next_tick_s(), self._patience.next_s(), self._writer.due_s]
        if self._link.state is State.WAITING:
            due.append(self._link.due_s)
        return max(0.0, min(IDLE_S, min(due) - self._clock()))

    def _watch_old_alarms(self, wait_s: float) -> None:
        """Alarms of an earlier run that nobody has receipted, once the log is open: after a power
        cut all of it is read first, and a disk may fail for a while."""
        if self._old_watched:
            return
        try:
            # Through the recorder: it may only just be making the log.
            if self._opened is None:
                self._opened = self._recorder.ask(lambda events: events.logid)
                self._opened.add_done_callback(lambda _: self._mqtt.wake())
            logid = self._opened.result(wait_s)
            self._logid = self._logid or logid
            self._news.watch_old(self._reader, self._clock())
            self._old_watched = True
        except TimeoutError:
            return
        except StorageError as error:
            self._opened = None
            log.debug("uplink: alarms of earlier runs cannot be read yet: %s", error)
        except InputError as error:
            self._old_watched = True
            log.warning("uplink: alarms of earlier runs cannot be read: %s", error)

    # ---- sending ----

    def _send(self) -> None:
        now = self._clock()
        self._fill(now)
        while (stored := self._uplink.next(now)) is not None:
            # An alarm waits for one message here, not for a window of them.
            if self._news:
                self._news.take(self._uplink, now)
                self._fill(now)
            try:
                event = stored.event
                topic = self._topics.event(event.kind)
                obstacle = "" if self._uplink.fits(stored) else "over_packet_size"
            except InputError:  # written by a newer edge_rt, or damaged: the rest must not wait
                obstacle = "unreadable"
            if obstacle:
                if self._uplink.withheld(stored):
                    self._tell_withheld(stored, obstacle)
                continue
            token = self._mqtt.publish(topic, stored.body)
            if token is None:
                self._mqtt.abort()
                self._on_closed(mqtt.Closed(False, "connection lost while sending"))
                return
            self._uplink.sent(token, stored, now)
            self._counts["published"] += 1
            if stored.lane is Lane.ALARM:
                self._latency.published(event, token, self._clock())

    def _fill(self, now: float) -> None:
        for _ in Lane:  # one query a lane at most: PUBACKs and alarms come first again after that
            want = self._uplink.want(now)
            if want is None:
                return
            logid = self._reader.logid()
            if logid != self._logid:
                self._new_log(logid)
                continue
            found = self._reader.next_unreceipted(want.lane, want.after, want.limit)
            if self._reader.logid() == logid:
                self._uplink.offer(want, found)

    def _new_log(self, logid: str) -> None:
        if self._logid:
            log.warning("uplink: the event log started anew")
            self._uplink = Uplink(self._rules)
            self._writer.clear()
            self._mqtt.abort()
            self._on_closed(mqtt.Closed(False, "the event log started anew"))
        self._logid = logid

    def _tell_withheld(self, stored: Stored, reason: str) -> None:
        log.error("uplink: event %d cannot be sent: %s", stored.sequence, reason)
        place = [stored.sequence, stored.sequence]
        data = {"reason": reason, "count": 1, "ranges": [place]}
        self._recorder.announce("device", "dropped", data)

    def _cry_for_help(self, now: float) -> None:
        for alarm in self._patience.overdue(now):
            log.error("uplink: nobody has receipted alarm %s: local siren", alarm.incident)
            self._unheard(alarm.incident)
            data = {"incident": alarm.incident, "alarm": alarm.sequence}
            self._recorder.announce("device", "alarm_unheard", data)

    # ---- what the broker said ----

    def _on_connected(self, fact: mqtt.Connected) -> None:
        now = self._clock()
        self._link.step(Event.ACCEPTED, now)
        self._error = ""
        self._counts["connects"] += 1
        self._latency.connected(now)
        self._session_present = fact.session_present
        # Also when the session is present: an older edge_rt may have begun it, with fewer topics.
        self._mqtt.subscribe([self._topics.ack, *self._inbox.filters])
        self._uplink.connected(fact.receive_maximum, fact.max_packet_bytes, now)
        self._publish_status("online")
        for letter in self._greetings():
            self._post(letter)

    def _on_closed(self, fact: mqtt.Closed) -> None:
        if self._link.state not in (State.CONNECTING, State.ONLINE):
            return
        event = Event.REFUSED if fact.refused else Event.LOST
        self._link.step(event, self._clock())
        self._uplink.disconnected()
        if fact.line != self._error:  # a day's outage is one line, not a thousand
            wait_s = self._link.due_s - self._clock()
            log.warning("uplink: no connection, next try in %.1f s: %s", wait_s, fact.line)
        self._error = fact.line
        if fact.refused:
            self._tell_refusal("connection", fact.reason)

    def _on_acked(self, fact: mqtt.Acked) -> None:
        refused = fact.code >= 128
        self._latency.acked(fact.token, self._clock())
        self._counts["refused" if refused else "acked"] += 1
        lane = self._uplink.puback(fact.token, refused, self._clock())
        if lane is not None:
            self._error = f"the broker refused events of lane {lane}: {fact.reason}"
            self._tell_refusal(lane, fact.reason)

    def _on_subscribed(self, fact: mqtt.Subscribed) -> None:
        for name, reason in fact.refused:
            self._error = f"the broker refused the subscription to {name}: {reason}"
            self._tell_refusal("subscription", reason)

    def _on_received(self, fact: mqtt.Received) -> None:
        try:
            if fact.topic != self._topics.ack:
                answer = self._inbox.deliver(fact.topic, fact.payload)
                if answer is not None:
                    self._post(answer)
                return
            message = self._open_receipt(fact.payload)
        except InputError as error:
            self._counts["bad_input"] += 1
            log.warning("uplink: %s", error)
            return
        if message.logid != self._logid:
            return  # of a log that is no more
        self._counts["receipts"] += 1
        for lane, given in message.lanes.items():
            mark = self._uplink.receipt(lane, given, self._clock())
            if mark is not None:
                self._writer.add(mark)
            if lane is Lane.ALARM:
                for alarm in self._patience.receipted(given):
                    log.warning("uplink: alarm %s was received at last", alarm.incident)

    def _post(self, letter: Letter) -> int | None:
        topic = letter.topic if letter.absolute else f"{self._topics.base}/{letter.topic}"
        token = self._mqtt.publish(topic, letter.payload, retain=letter.retain, qos=letter.qos)
        if token is not None and letter.qos:
            self._uplink.sent_other(token, self._clock())
        return token

    def set_patience(self, patience_s: float) -> None:
        """From now on wait so long for an alarm's receipt."""
        self._patience.patience_s = patience_s

    def _tell_refusal(self, what: str, reason: str) -> None:
        key = (str(what), reason)
        if key in self._told or len(self._told) >= MAX_REFUSALS_TOLD:
            return
        self._told.add(key)
        log.error("uplink: the broker refused %s: %s", what, reason)
        self._recorder.announce("device", "uplink_refused", {"what": what, "reason": reason})

    def _publish_status(self, status: str) -> int | None:
        state = Status(status, self._boot_id, self._logid, __version__)
        return self._post(Letter("status", msgspec.json.encode(state), retain=True))

    # ---- the end ----

    def _goodbye(self) -> None:
        if self._link.state is State.ONLINE:
            token = self._publish_status("stopped")
            deadline = self._clock() + GOODBYE_S
            while token is not None and self._clock() < deadline:
                facts = self._mqtt.poll(deadline - self._clock())
                closed = any(isinstance(fact, mqtt.Closed) for fact in facts)
                if closed or any(isinstance(f, mqtt.Acked) and f.token == token for f in facts):
                    break
            self._mqtt.disconnect()
        self._link.step(Event.STOP, self._clock())
        self._mqtt.close()
        self._reader.close()
