"""The configuration: frozen, typed, units in the names; an unknown key is an error.

`parse_config` is pure; reading the file is the caller's. Every section has defaults: without any of
them a simulated wearer is watched and no camera opened.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_rt.core.errors import ConfigError
from edge_rt.core.manifest import Struct
from edge_rt.core.pin_config import (
    GpioButton,
    GpiodChip,
    InputConfig,
    ModelChip,
    OutputConfig,
    lines_of,
)
from edge_rt.core.typed_toml import decode_toml
from edge_rt.core.unlock import UnlockRules
from edge_rt.core.update_config import UpdatesConfig
from edge_rt.core.uplink_config import MqttConfig
from edge_rt.core.wake import WakeRules

# A fleet or device name becomes a topic level and an ACL entry: no separator, no wildcard.
TopicName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class DeviceConfig(Struct, frozen=True):
    """Who this device is: the `source` of its events and its topics."""

    fleet: TopicName = "home"
    name: TopicName = "edge-rt"


class RuntimeConfig(Struct, frozen=True):
    """Engine, threads and places.

    engine      auto, litert or tflite-runtime
    threads     of one interpreter; small models are slower with more than one
    event_log_max_mb  size bound of the event log; 64 MB is about 200,000 events
    """

    engine: str = "auto"
    threads: Annotated[int, Meta(ge=1, le=4)] = 1
    state_dir: str = "/var/lib/edge-rt"
    run_dir: str = "/run/edge-rt"
    event_log_max_mb: Annotated[int, Meta(ge=1, le=4096)] = 64


# ---- accelerometers ----


class SimulatedAccelerometer(Struct, tag_field="driver", tag="simulated", frozen=True):
    """A seeded physical simulation of a wearer, for trying out. scene: see falls.simulate."""

    seed: int = 1
    rate_hz: Positive = 50.0
    scene: str = "walking"
    repeat: bool = True
    speed: Positive = 1.0


class ReplayedAccelerometer(Struct, tag_field="driver", tag="replay", frozen=True):
    """A trials/1 file. trial: its id (the first one if empty); repeat: start over at the end."""

    file: str
    trial: str = ""
    repeat: bool = False
    speed: Positive = 1.0


class BusFault(Struct, frozen=True):
    """Something that goes wrong on a model bus, `at_s` after its first transfer.

    unplug  nobody answers for `seconds`; the chip is as after power-on then
    errors  every transfer fails for `seconds`
    torn    every block transfer is cut for `seconds`; what was on its way is lost
    stall   one transfer takes `seconds`
    """

    kind: Literal["unplug", "errors", "torn", "stall"]
    at_s: Annotated[float, Meta(ge=0)]
    seconds: Positive


class BusModel(Struct, frozen=True):
    """A model of the chip in the place of bus and chip, for those without hardware.

    file, trial  what the chip feels: a trials/1 file; empty: the simulated `scene`
    clock_error  the chip samples so much too fast, as a share
    """

    file: str = ""
    trial: str = ""
    scene: str = "walking"
    seed: int = 1
    repeat: bool = True
    clock_error: Annotated[float, Meta(ge=-0.1, le=0.1)] = 0.0
    faults: tuple[BusFault, ...] = ()


# Which way the chip sits: body axis x, y, z is which of the chip's, "-" for against it. The default
# says that chip and body agree: x ahead, y to the left, z up (docs/sensors.md).
Axes = Annotated[str, Meta(pattern=r"^[+-]?[xyz], ?[+-]?[xyz], ?[+-]?[xyz]$")]
Bus = Annotated[str, Meta(pattern=r"^(\d+|/dev/.+)$")]


class Mpu6050Source(Struct, tag_field="driver", tag="mpu6050", frozen=True):
    """An MPU-6050 on I2C.

    bus           number, or path of the device
    address       0x68; 0x69 with pin AD0 high
    range_g       impacts of falls reach beyond 8 g
    rate_hz       1000 / n; it takes the nearest
    bandwidth_hz  of its low-pass
    mode          fifo: samples evenly taken by the chip; poll: one at a time, taken by us
    transfers     smbus: never anything but SMBus block transfers
    axes          which way the chip sits, see `Axes`
    model         a model of bus and chip instead
    """

    bus: Bus = "1"
    address: Annotated[int, Meta(ge=0x03, le=0x77)] = 0x68
    range_g: Literal[2, 4, 8, 16] = 16
    rate_hz: Annotated[float, Meta(ge=25, le=200)] = 100.0
    bandwidth_hz: Literal[5, 10, 21, 44, 94, 184] = 44
    mode: Literal["fifo", "poll"] = "fifo"
    transfers: Literal["auto", "smbus"] = "auto"
    axes: Axes = "x,y,z"
    model: BusModel | None = None


class Adxl345Source(Struct, tag_field="driver", tag="adxl345", frozen=True):
    """An ADXL345 on I2C; like Mpu6050Source. address: 0x53; 0x1d with pin SDO high."""

    bus: Bus = "1"
    address: Annotated[int, Meta(ge=0x03, le=0x77)] = 0x53
    range_g: Literal[2, 4, 8, 16] = 16
    rate_hz: Literal[25, 50, 100, 200, 400] = 100
    mode: Literal["fifo", "poll"] = "fifo"
    transfers: Literal["auto", "smbus"] = "auto"
    axes: Axes = "x,y,z"
    model: BusModel | None = None


class IioSource(Struct, tag_field="driver", tag="iio", frozen=True):
    """An accelerometer that the kernel drives (Linux IIO).

    device   its name as in sysfs, or iio:device0, or 0; empty: the only one there is
    range_g  is set where the device can choose; else what it has is taken
    mode     buffer: samples with the kernel's time stamps, where the device has a trigger;
             poll: one at a time; auto: buffer if `edge-rt sensor-setup` has set one up
    trigger  its name, or "timer" for one that is made; empty: the device's own
    axes     as in Mpu6050Source, upon the device's own mount matrix
    """

    device: str = ""
    range_g: Positive = 16.0
    rate_hz: Annotated[float, Meta(ge=25, le=400)] = 100.0
    mode: Literal["auto", "poll", "buffer"] = "auto"
    trigger: str = ""
    axes: Axes = "x,y,z"


AccelerometerSource = (
    SimulatedAccelerometer | ReplayedAccelerometer | Mpu6050Source | Adxl345Source | IioSource
)


class AlarmConfig(Struct, frozen=True):
    """What a household may choose of the alarm; the rest is `core.fall_rules`.

    cancel_window_s     from pre-alarm to alarm, for one who moves
    escalated_window_s  the same for one who lies still
    cancel_on_recovery  walking upright again cancels the pre-alarm by itself
    """

    cancel_window_s: Annotated[float, Meta(ge=5, le=120)] = 20.0
    escalated_window_s: Annotated[float, Meta(ge=5, le=120)] = 10.0
    cancel_on_recovery: bool = False


class FallConfig(Struct, frozen=True):
    """Fall detection.

    bundle     factory name or folder of a bundle of task "fall"
    threshold  overrides the bundle's, within the bundle's own bounds
    stamps     "even": samples carry the time they were taken; "arrival": the time they came in;
               "auto": what the driver delivers
    lost_s     a sensor silent for so long is lost; an event and a red status follow
    """

    enabled: bool = True
    bundle: str = "fall-waist"
    threshold: float | None = None
    stamps: Literal["auto", "even", "arrival"] = "auto"
    lost_s: Positive = 2.0
    source: AccelerometerSource = SimulatedAccelerometer()
    alarm: AlarmConfig = AlarmConfig()


# ---- cameras ----


class OpenCVCamera(Struct, tag_field="driver", tag="opencv", frozen=True):
    """A V4L2 camera.

    device   number or path; a link in /dev/v4l/by-id names the same camera after it is plugged in
             elsewhere
    format   a FOURCC; empty: what the camera prefers
    exposure_ms, gain, white_balance_k  fixed instead of automatic; gain in the camera's own units.
             What the camera makes of them is read back, logged and told by `edge-rt status`
    """

    device: str = "/dev/video0"
    width: Count = 640
    height: Count = 480
    rate_hz: Positive = 15.0
    format: Annotated[str, Meta(pattern=r"^(|.{4})$")] = "MJPG"
    exposure_ms: Positive | None = None
    gain: Annotated[float, Meta(ge=0)] | None = None
    white_balance_k: Annotated[int, Meta(ge=1000, le=20000)] | None = None


class Picamera2Camera(Struct, tag_field="driver", tag="picamera2", frozen=True):
    """A camera on the ribbon of a Raspberry Pi; needs the system's package python3-picamera2."""

    index: Annotated[int, Meta(ge=0, le=3)] = 0
    width: Count = 640
    height: Count = 480
    rate_hz: Positive = 15.0
    exposure_ms: Positive | None = None
    gain: Positive | None = None


class ReplayedCamera(Struct, tag_field="driver", tag="replay", frozen=True):
    """A video file, or a folder of pictures."""

    file: str
    repeat: bool = False
    speed: Positive = 1.0


class DemoCamera(Struct, tag_field="driver", tag="demo", frozen=True):
    """A clip made of the photographs that come with edge_rt: their owner, then strangers."""

    seed: int = 1
    speed: Positive = 1.0


class FaceConfig(Struct, frozen=True):
    """Face unlock.

    armed        look from the start; what is asked for later is kept until this is changed. While
                 disarmed nothing is captured
    distance     overrides the embedder bundle's threshold, within the bundle's own bounds
    template_key credential name ($CREDENTIALS_DIRECTORY) or path of a 0600 file; empty: a key
                 made at first use inside the state folder
    threads      of the embedder, which is large enough to gain by them; its output is the same
    hang_s       a worker silent for so long is killed and replaced; 20 s while it opens the camera
    memory_mb    a worker that grows beyond this is replaced (a leak must not starve falls)
    """

    enabled: bool = False
    armed: bool = True
    detect: str = "face-detect"
    embed: str = "face-embed"
    threads: Annotated[int, Meta(ge=1, le=4)] = 2
    distance: float | None = None
    template_key: str = ""
    hang_s: Positive = 5.0
    memory_mb: Annotated[int, Meta(ge=64, le=2048)] = 256
    camera: OpenCVCamera | Picamera2Camera | ReplayedCamera | DemoCamera = OpenCVCamera()
    wake: WakeRules = WakeRules()
    rules: UnlockRules = UnlockRules()


class Config(Struct, frozen=True):
    """The whole file."""

    device: DeviceConfig = DeviceConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    falls: FallConfig = FallConfig()
    faces: FaceConfig = FaceConfig()
    gpio: GpiodChip | ModelChip = GpiodChip()
    outputs: OutputConfig = OutputConfig()
    inputs: InputConfig = InputConfig()
    mqtt: MqttConfig = MqttConfig()
    updates: UpdatesConfig = UpdatesConfig()

    def __post_init__(self) -> None:
        if self.updates.enabled and not self.mqtt.enabled:
            raise ValueError("updates.enabled needs mqtt.enabled; models come over MQTT")
        users: dict[int, str] = {}
        for user, line in lines_of(self.outputs, self.inputs).items():
            if line in users:
                raise ValueError(f"{users[line]} and {user} share line {line}; give each its own")
            users[line] = user


def parse_config(text: bytes | str, where: str) -> Config:
    """Decode a configuration; `where` names the file in errors.

    Raises ConfigError that names the file, the key and, for an unknown one, the nearest valid key.
    """
    config: Config = decode_toml(text, Config, where, ConfigError)
    # Not a rule of Config: a daemon that does without falls for a while keeps its buttons.
    if isinstance(config.inputs.help, GpioButton) and not config.falls.enabled:
        raise ConfigError(
            f"{where}: inputs.help calls nobody while falls.enabled is false; set that to true, or"
            " leave [inputs.help] out"
        )
    return config
