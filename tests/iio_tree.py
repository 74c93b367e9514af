"""A folder like the kernel's /sys/bus/iio/devices of real files, and a pipe for the device."""

from __future__ import annotations

import os
from pathlib import Path

# As the kernel's inv-mpu6050 shows itself.
MPU6050 = {
    "name": "mpu6050",
    "in_accel_x_raw": 0,
    "in_accel_y_raw": 0,
    "in_accel_z_raw": 2048,
    "in_accel_scale": "0.000598",
    "in_accel_scale_available": "0.000598 0.001196 0.002392 0.004785",
    "in_accel_mount_matrix": "1, 0, 0; 0, 1, 0; 0, 0, 1",
    "sampling_frequency": 50,
    "sampling_frequency_available": "10 20 50 100 200 500",
    "current_timestamp_clock": "realtime",
    "buffer/enable": 0,
    "buffer/length": 2,
    "trigger/current_trigger": "",
    **{
        f"scan_elements/{name}_{key}": value
        for index, (name, kind) in enumerate(
            [
                *((f"in_accel_{axis}", "be:s16/16>>0") for axis in "xyz"),
                ("in_anglvel_x", "be:s16/16>>0"),
                ("in_timestamp", "le:s64/64>>0"),
            ]
        )
        for key, value in (("en", 0), ("index", index), ("type", kind))
    },
}


class IioTree:
    """sys_root and dev_root to give to what reads them."""

    def __init__(self, root: Path) -> None:
        self.sys_root, self.dev_root = root / "sys", root / "dev"
        self.sys_root.mkdir()
        self.dev_root.mkdir()

    def device(self, number: int = 0, **attributes: object) -> Path:
        """A device like MPU6050; an attribute that is None is not there."""
        folder = self.sys_root / f"iio:device{number}"
        for name, value in {**MPU6050, **attributes}.items():
            if value is not None:
                path = folder / name.replace("__", "/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{value}\n")
        return folder

    def trigger(self, name: str, number: int = 0) -> Path:
        folder = self.sys_root / f"trigger{number}"
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        return folder

    def pipe(self, number: int = 0) -> int:
        """The character device; what is written to the answer can be read from it."""
        path = self.dev_root / f"iio:device{number}"
        os.mkfifo(path)
        return os.open(path, os.O_RDWR)
