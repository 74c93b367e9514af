"""A connection that did not come about, in words: what happened, and what a person can do."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from edge_rt.core.mqtt_facts import Closed

# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH (x509_vfy.h).
_WRONG_NAME = (62, 64)
# Words of a broker's refusal (MQTT 5.0, 2.4) -> remedy.
_REMEDIES = {
    "Session taken over": "another client has this client id; give each device its own name",
    "Client identifier not valid": "choose another client id",
    "Unsupported protocol version": 'set version = "3.1.1", or upgrade the broker',
    "Server busy": "it is tried again",
    "Server unavailable": "it is tried again",
    "Quota exceeded": "raise the broker's limits",
    "Connection rate exceeded": "it is tried again",
    "Packet too large": "raise the broker's max_packet_size",
}


class Words(NamedTuple):
    """Of the connection to one broker.

    place  `host:port`
    ca     file that vouches for the broker; empty: the system's CAs
    """

    place: str
    ca: str
    tls: bool

    def unreachable(self, error: Exception, *, unnamed: bool) -> Closed:
        """No connection came about; unnamed: the name could not be looked up (socket.gaierror)."""
        place = self.place
        match error:
            case _ if unnamed:
                reason = f"{place}: the name was not found"
                remedy = "correct it, or see to the network's DNS"
            case ssl.SSLCertVerificationError() if error.verify_code in _WRONG_NAME:
                reason = f"{place}: the broker's certificate is for another name"
                remedy = "use a name that is in it, or have it signed for this one"
            case ssl.SSLCertVerificationError():
                vouches = self.ca or "the system's CAs"
                reason = f"{place}: {vouches} does not vouch for the broker: {error.verify_message}"
                remedy = "name the file of the CA that signed its certificate"
            case ConnectionRefusedError():
                reason = f"{place} refuses TCP connections"
                remedy = "start the broker, or correct host and port"
            case TimeoutError():
                reason = f"{place} does not answer"
                remedy = "check network, firewall, host and port"
            case ssl.SSLError() | ConnectionResetError():
                detail = getattr(error, "reason", None) or "connection reset"
                reason = f"{place}: TLS failed ({detail})"
                remedy = "use the port on which the broker speaks TLS"
            case OSError():
                reason = f"{place}: {error.strerror or error}"
                remedy = "check the network"
            case _:  # a file that cannot be used, which names itself
                reason, remedy = str(error), ""
        return Closed(False, reason, remedy)

    def ended(self, refused: bool, reason: str, *, answered: bool) -> Closed:
        """A connection that was made has ended.

        refused   by the broker's verdict, with its `reason`
        answered  it had accepted us before
        """
        if refused:
            other = "check user and password, or the certificate, and the broker's access list"
            return Closed(True, reason, _REMEDIES.get(reason, other))
        if answered:
            return Closed(False, f"{self.place}: connection lost ({reason})")
        # A broker with TLS 1.3 judges our certificate after the handshake, and just hangs up.
        remedy = (
            "check our certificate: its CA, its end, the broker's revocation list"
            if self.tls
            else "if it is a port for TLS, give a CA instead of insecure"
        )
        return Closed(False, f"{self.place} hung up before it answered", remedy)
