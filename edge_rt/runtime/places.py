"""Names of the files in the state folder, for all that look for them."""

from __future__ import annotations

from edge_rt.adapters.templates import KEY_NAME, STORE_NAME

EVENTS_NAME, FALL_NAME, UNLOCK_NAME = "events.db", "fall.json", "unlock.json"
TWIN_NAME, COMMANDS_NAME = "twin.json", "commands.json"
CALIBRATION_NAME = "accelerometer.json"
# Not part of a backup: it is about the broker, not the device.
ANNOUNCED_NAME = "home-assistant.json"
STATE_FILES = (
    *(EVENTS_NAME, FALL_NAME, UNLOCK_NAME, TWIN_NAME, COMMANDS_NAME, CALIBRATION_NAME),
    *(STORE_NAME, KEY_NAME),
)
