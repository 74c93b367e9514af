"""The other side of MQTT: the reference receiver, and the certificates of a small fleet."""
