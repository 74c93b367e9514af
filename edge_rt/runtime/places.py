"""Names of the files in the state folder, for all that look for them."""

from __future__ import annotations

from edge_rt.adapters.templates import KEY_NAME, STORE_NAMES

EVENTS_NAME, FALL_NAME, UNLOCK_NAME = "events.db", "fall.json", "unlock.json"
FACES_NAME = "faces.json"
TWIN_NAME, COMMANDS_NAME = "twin.json", "commands.json"
CALIBRATION_NAME = "accelerometer.json"
# Not part of a backup: it is about the broker, not the device.
ANNOUNCED_NAME = "home-assistant.json"
STATE_FILES = (
    *(EVENTS_NAME, FALL_NAME, UNLOCK_NAME, FACES_NAME, TWIN_NAME, COMMANDS_NAME, CALIBRATION_NAME),
    *(*STORE_NAMES, KEY_NAME),
)
# Not part of a backup: models come again, signed, from whoever publishes them, and what a device
# has tried is about that device. A restore leaves them as they are; a factory reset removes them.
MODELS_NAME = "models"  # slots and their journals
MIGRATION_NAME = "migration.bin"  # templates for a model that is not live yet, sealed
UPDATES_NAME = "updates"  # trusted metadata, downloads, staging
