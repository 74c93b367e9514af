"""MQTT by paho: one connection at a time, callbacks turned into facts that poll() returns.

MQTT 5.0 and 3.1.1 (OASIS). All of paho's own queueing and resending stays unused: a client object
lives for one connection, and what goes out when is core.uplink's to say.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_rt.core.errors import CredentialError
from edge_rt.core.mqtt_facts import Acked, Closed, Connected, Fact, Received, Subscribed
from edge_rt.core.mqtt_words import Words

# TCP and TLS together; a broker that takes longer is tried again later.
CONNECT_TIMEOUT_S = 10.0
QOS = 1

__all__ = ["Acked", "Closed", "Connected", "Message", "Mqtt", "Received", "Settings", "Subscribed"]


class Settings(NamedTuple):
    """Where and as whom to connect.

    version      "5" or "3.1.1"
    insecure     plain TCP, no TLS at all
    ca           file of the trusted CAs; None: the system's
    cert, key    the client's certificate (with chain) and private key; None: no client certificate
    password     given with `username`
    session_s    how long the broker keeps subscriptions and messages for us; 0: not at all
    receive_maximum, max_packet_bytes  what we are ready to take at once; a broker that sends a
                 larger packet all the same is dropped
    batch        messages that one poll() gives at most
    receive_buffer_bytes  of the kernel (socket(7)): what may be under way to us when we stop
                 reading; 0: as the system has it
    """

    host: str
    port: int
    client_id: str
    version: str = "5"
    insecure: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    username: str = ""
    password: bytes = b""
    keepalive_s: int = 30
    session_s: int = 0
    receive_maximum: int = 64
    max_packet_bytes: int = 256 * 1024
    batch: int = 512
    receive_buffer_bytes: int = 0


class Message(NamedTuple):
    """What a retained status or a last will needs."""

    topic: str
    payload: bytes
    retain: bool = True


def tls_context(settings: Settings) -> ssl.SSLContext:
    """TLS 1.2 or newer, the broker's certificate and name verified.

    Raises CredentialError for a file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    path = settings.ca
    try:
        if settings.ca is not None:
            context.load_verify_locations(settings.ca)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if settings.cert is not None:
            path = settings.cert
            # An empty password: a key that needs one fails instead of asking the terminal.
            context.load_cert_chain(settings.cert, settings.key, password="")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise CredentialError(f"mqtt: {path}: cannot be used for TLS ({error})") from None
    return context


class Mqtt:
    """The connection. All methods are for one thread, but wake(), which any may call.

    Raises CredentialError when a TLS file cannot be used.
    """

    def __init__(self, settings: Settings, will: Message | None = None) -> None:
        self.settings = settings
        self.will = will
        place, ca = f"{settings.host}:{settings.port}", str(settings.ca or "")
        self._words = Words(place, ca, not settings.insecure)
        if not settings.insecure:
            tls_context(settings)  # now rather than at the first connection: names the file
        self._client: Client | None = None
        self._answered = False  # by the broker, on this connection
        self._attempt = 0
        self._facts: deque[Fact] = deque()
        self._opened: deque[tuple[int, Client | Closed]] = deque()
        self._filters: dict[int, tuple[str, ...]] = {}
        # QoS 0 in paho's buffer. A link that takes nothing is dropped by its keep-alive first.
        self._unanswered: set[int] = set()
        self._wake_lock = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # ---- any thread ----

    def wake(self) -> None:
        """Make a waiting poll() return."""
        with self._wake_lock:  # once closed, its number may be another file's
            if self._wake_fd >= 0:
                with contextlib.suppress(BlockingIOError):  # full: awake already
                    os.eventfd_write(self._wake_fd, 1)

    # ---- the owning thread ----

    def open(self) -> None:
        """Begin to connect; Connected or Closed follows from poll()."""
        self.abort()
        self._attempt += 1
        # A thread of its own: looking up a name may hang for a minute and cannot be interrupted.
        threading.Thread(
            target=self._connect, args=(self._attempt,), name="mqtt-connect", daemon=True
        ).start()

    def poll(self, timeout_s: float) -> list[Fact]:
        """What has happened; waits up to `timeout_s` for the first."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._adopt()
            woken = self._wait(0.0 if self._facts else max(0.0, deadline - time.monotonic()))
            self._service()
            if self._facts or woken or time.monotonic() >= deadline:
                facts, self._facts = list(self._facts), deque()
                return facts

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, qos: int = QOS, expiry_s: int = 0
    ) -> int | None:
        """Send; the token that its Acked will carry (of QoS 1 only), None if the connection is
        gone. expiry_s: so long the broker tries to deliver it (MQTT 5 only); 0: for ever."""
        if (client := self._client) is None:
            return None
        # paho reports a QoS 0 message when it is written, which may be from within publish().
        client.on_publish = self._on_publish if qos else None
        properties: Properties | None = None
        if expiry_s and self.settings.version == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expiry_s
        info = client.publish(topic, payload, qos, retain, properties)
        client.on_publish = self._on_publish
        if not qos and client.want_write():
            self._unanswered.add(info.mid)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def subscribe(self, filters: Sequence[str]) -> None:
        """Ask for topics at QoS 1; Subscribed follows."""
        if self._client is None:
            return
        how = SubscribeOptions(qos=QOS) if self.settings.version == "5" else QOS
        wanted: Any = [(name, how) for name in filters]
        _, mid = self._client.subscribe(wanted)
        if mid is not None:
            self._filters[mid] = tuple(filters)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Ask for topics no longer; what is under way may still come."""
        if self._client is not None and filters:
            self._client.unsubscribe(list(filters))

    def disconnect(self) -> None:
        """Say goodbye: the broker drops the last will."""
        client, self._client = self._client, None
        self._attempt += 1
        if client is not None:
            _silence(client)
            client.disconnect()
            for _ in range(100):  # at most 1 s for what is still in the buffer
                sock = client.socket()
                if sock is None or not client.want_write():
                    break
                select.select([], [sock], [], 0.01)
                client.loop_write()
            _drop(client)

    def abort(self) -> None:
        """Drop the connection without a word: the broker sends the last will."""
        client, self._client = self._client, None
        self._attempt += 1
        self._facts.clear()  # tokens begin anew with each connection
        if client is not None:
            _silence(client)
            _drop(client)

    def close(self) -> None:
        """Abort, and free the wake-up descriptor; the object is of no more use."""
        self.abort()
        with self._wake_lock:
            os.close(self._wake_fd)
            self._wake_fd = -1

    # ---- connecting ----

    def _connect(self, attempt: int) -> None:
        client: Client | None = None
        try:
            client = self._make_client()
            kwargs: dict[str, Any] = {"keepalive": self.settings.keepalive_s}
            if self.settings.version == "5":
                kwargs["clean_start"] = self.settings.session_s == 0
                kwargs["properties"] = self._connect_properties()
            client.connect(self.settings.host, self.settings.port, **kwargs)
            self._opened.append((attempt, client))
        except (OSError, ValueError, CredentialError) as error:
            if client is not None:
                _drop(client)
            unnamed = isinstance(error, socket.gaierror)
            self._opened.append((attempt, self._words.unreachable(error, unnamed=unnamed)))
        self.wake()

    def _make_client(self) -> Client:
        settings, five = self.settings, self.settings.version == "5"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if five else settings.session_s == 0,
            protocol=MQTTv5 if five else MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the window is core.uplink's
        if settings.username:
            client.username_pw_set(settings.username, settings.password.decode() or None)
        if not settings.insecure:
            client.tls_set_context(tls_context(settings))
        if self.will is not None:
            client.will_set(self.will.topic, self.will.payload, QOS, self.will.retain)
        client.on_socket_open = self._on_socket
        return client

    def _connect_properties(self) -> Properties:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        if self.settings.session_s:
            properties.SessionExpiryInterval = self.settings.session_s
        properties.ReceiveMaximum = self.settings.receive_maximum
        properties.MaximumPacketSize = self.settings.max_packet_bytes
        return properties

    def _adopt(self) -> None:
        """Take over what the connecting thread made, if it is still wanted."""
        while self._opened:
            attempt, outcome = self._opened.popleft()
            if attempt != self._attempt:
                if isinstance(outcome, Client):
                    _drop(outcome)
            elif isinstance(outcome, Closed):
                self._facts.append(outcome)
            else:
                self._client, self._answered = outcome, False
                self._filters.clear()
                self._unanswered.clear()
                outcome.on_connect = self._on_connect
                outcome.on_disconnect = self._on_disconnect
                outcome.on_publish = self._on_publish
                outcome.on_subscribe = self._on_subscribe
                outcome.on_message = self._on_message

    # ---- the loop ----

    def _wait(self, timeout_s: float) -> bool:
        """Until the socket or a wake-up has something; True if woken."""
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        sock = self._client.socket() if self._client is not None else None
        if self._client is not None and sock is None:
            timeout_s = 0.0  # refused before it was taken over: nothing would wake us for it
        if sock is not None and self._client is not None:
            write = select.POLLOUT if self._client.want_write() else 0
            poller.register(sock, select.POLLIN | write)
            if isinstance(sock, ssl.SSLSocket) and sock.pending():
                timeout_s = 0.0
            # paho sends its keep-alive pings from loop_misc.
            timeout_s = min(timeout_s, self.settings.keepalive_s / 4)
        ready = {fd for fd, _ in poller.poll(timeout_s * 1000)}
        if self._wake_fd not in ready:
            return False
        os.eventfd_read(self._wake_fd)
        return True

    def _service(self) -> None:
        client = self._client
        if client is None:
            return
        result = client.loop_misc()
        # paho reads one packet a call when nothing of ours is in flight; a burst becomes one batch,
        # and the caller still gets its turn.
        for _ in range(self.settings.batch):
            before = len(self._facts)
            if result == MQTTErrorCode.MQTT_ERR_SUCCESS:
                result = client.loop_read()
            # It has taken 1.6 MB of a packet at most by then; its end may be 256 MB away.
            if client._in_packet["remaining_length"] > self.settings.max_packet_bytes:
                self._ended(True, "the broker sends a larger packet than was agreed")
                return
            if result != MQTTErrorCode.MQTT_ERR_SUCCESS or len(self._facts) == before:
                break
        if result == MQTTErrorCode.MQTT_ERR_SUCCESS and client.want_write():
            result = client.loop_write()
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS or client.socket() is None:
            self._ended(False, result.name)

    def _ended(self, refused: bool, reason: str) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._facts.append(self._words.ended(refused, reason, answered=self._answered))
            _silence(client)
            _drop(client)

    # ---- paho's callbacks, all from within _service() ----

    def _on_connect(
        self, client: Client, _: object, flags: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._ended(True, str(code))
            return
        self._answered = True
        limits = [getattr(properties, n, 0) for n in ("ReceiveMaximum", "MaximumPacketSize")]
        self._facts.append(Connected(bool(flags.session_present), *limits))

    def _on_disconnect(
        self, client: Client, _: object, flags: Any, code: ReasonCode, __: object
    ) -> None:
        from_broker = bool(flags.is_disconnect_packet_from_server)
        # 0x8B shutting down, 0x8D keep-alive time-out: no verdict on us (MQTT 5.0, 3.14.2.1).
        self._ended(from_broker and code.value not in (0x8B, 0x8D), str(code))

    def _on_publish(
        self, client: Client, _: object, mid: int, code: ReasonCode, __: object
    ) -> None:
        if mid in self._unanswered:
            self._unanswered.discard(mid)
            return
        self._facts.append(Acked(mid, code.value, str(code)))

    def _on_subscribe(
        self, client: Client, _: object, mid: int, codes: list[ReasonCode], __: object
    ) -> None:
        named = zip(self._filters.pop(mid, ()), codes, strict=False)
        refused = tuple((name, str(code)) for name, code in named if code.is_failure)
        self._facts.append(Subscribed(refused))

    def _on_socket(self, client: Client, _: object, sock: Any) -> None:
        size = self.settings.receive_buffer_bytes
        with contextlib.suppress(OSError):  # an ended connection reports itself at the first read
            # Without it every second message waits 40 ms for the other side's delayed ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if size:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def _on_message(self, client: Client, _: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._facts.append(Received(topic, bytes(message.payload), bool(message.retain)))


def _silence(client: Client) -> None:
    client.on_connect = client.on_disconnect = client.on_publish = None
    client.on_subscribe = client.on_message = None


def _drop(client: Client) -> None:
    """Close the socket without DISCONNECT."""
    sock = client.socket()
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.close()
