#!/usr/bin/env python3
"""Draws docs/wiring.svg: what is wired to which pin of a Raspberry Pi's header.

    scripts/make_wiring_picture.py [FILE]

Pure text, no library: every coordinate is in pixels, y downwards.
"""

from __future__ import annotations

import sys
from pathlib import Path

WIDTH, HEIGHT = 960, 930
HEADER_X, HEADER_Y, PITCH = 790, 92, 30  # odd pins; even ones stand ODD_EVEN to the right of them
ODD_EVEN = 34
COLOURS = {
    "3v3": "#e08a00",
    "5v": "#d03030",
    "gnd": "#303030",
    "i2c": "#2060c0",
    "out": "#208040",
    "in": "#8040a0",
    "free": "#d8d8d8",
}
NAMES = {
    1: ("3.3 V", "3v3"),
    2: ("5 V", "5v"),
    3: ("GPIO 2  SDA", "i2c"),
    4: ("5 V", "5v"),
    5: ("GPIO 3  SCL", "i2c"),
    6: ("GND", "gnd"),
    9: ("GND", "gnd"),
    11: ("GPIO 17  lock", "out"),
    13: ("GPIO 27  siren", "out"),
    14: ("GND", "gnd"),
    15: ("GPIO 22  LED", "out"),
    17: ("3.3 V", "3v3"),
    20: ("GND", "gnd"),
    25: ("GND", "gnd"),
    29: ("GPIO 5  cancel", "in"),
    30: ("GND", "gnd"),
    31: ("GPIO 6  help", "in"),
    34: ("GND", "gnd"),
    39: ("GND", "gnd"),
}
LABEL_X = HEADER_X - 14  # names of odd pins end here, above their wires


class Drawing:
    """Collects the elements of one picture."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 13,
        anchor: str = "start",
        on: bool = False,
    ) -> None:
        """on: it stands on something coloured; else wires that it crosses make way."""
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" '
            f"class='{'on' if on else 'free'}'>{words}</text>"
        )

    def box(self, x: float, y: float, width: float, height: float, *words: str) -> None:
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" class="part"/>'
        )
        for k, line in enumerate(words):
            middle = y + height / 2 + 5 + (k - (len(words) - 1) / 2) * 16
            self.text(x + width / 2, middle, line, anchor="middle", size=12, on=True)

    def wire(self, colour: str, *points: tuple[float, float]) -> None:
        path = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" stroke="{COLOURS[colour]}" class="wire"/>')

    def dot(self, colour: str, x: float, y: float) -> None:
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{COLOURS[colour]}"/>')

    def ground(self, x: float, y: float) -> None:
        """The sign for GND, hanging from (x, y)."""
        self.wire("gnd", (x, y), (x, y + 10))
        for k, half in enumerate((11, 7, 3)):
            self.wire("gnd", (x - half, y + 10 + 5 * k), (x + half, y + 10 + 5 * k))

    def diode(self, left: float, y: float, right: float, colour: str) -> None:
        """A diode that conducts from right to left, its bar to the left."""
        middle = (left + right) / 2
        self.wire(colour, (left, y), (right, y))
        self.parts.append(
            f'<polygon points="{middle + 9},{y - 8} {middle + 9},{y + 8} {middle - 7},{y}" '
            f'fill="{COLOURS[colour]}"/>'
        )
        self.wire(colour, (middle - 8, y - 8), (middle - 8, y + 8))

    def svg(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="Helvetica, Arial, sans-serif" fill="#202020">\n'
            "<title>Wiring of edge_rt on a Raspberry Pi</title>\n"
            "<style>.part{fill:#f6f6f2;stroke:#404040;stroke-width:1.5}"
            ".wire{fill:none;stroke-width:2.2}"
            "text{paint-order:stroke;stroke:#ffffff;stroke-width:3px;stroke-linejoin:round}"
            ".on{stroke:none}</style>\n"
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        )
        return head + "\n".join(self.parts) + "\n</svg>\n"


def pin_y(pin: int) -> float:
    return HEADER_Y + (pin - 1) // 2 * PITCH


def draw_header(d: Drawing) -> None:
    d.text(HEADER_X + 20, 38, "Raspberry Pi", size=16, anchor="middle")
    d.text(HEADER_X + 20, 56, "header, pin 1 at the top left", size=12, anchor="middle")
    d.parts.append(
        f'<rect x="{HEADER_X - 17}" y="{HEADER_Y - 18}" width="{ODD_EVEN + 34}" '
        f'height="{19 * PITCH + 36}" rx="5" fill="#404048"/>'
    )
    for pin in range(1, 41):
        name, kind = NAMES.get(pin, ("", "free"))
        x, y = HEADER_X + (0 if pin % 2 else ODD_EVEN), pin_y(pin)
        ring = "#ffffff" if kind == "gnd" else "none"
        d.parts.append(f'<circle cx="{x}" cy="{y}" r="9" fill="{COLOURS[kind]}" stroke="{ring}"/>')
        ink = "#202020" if kind in ("free", "3v3") else "#ffffff"
        d.parts.append(
            f'<text x="{x}" y="{y + 3.5}" font-size="10" text-anchor="middle" fill="{ink}" '
            f'class="on">{pin}</text>'
        )
        if name and pin % 2 == 0:
            d.text(x + 22, y + 4, name, size=12)


def pin_wire(d: Drawing, pin: int, *points: tuple[float, float]) -> None:
    """From a pin on the left side, with the pin's name above the wire."""
    name, kind = NAMES[pin]
    y = pin_y(pin)
    d.wire(kind, (HEADER_X - 10, y), *points)
    d.text(LABEL_X - 6, y - 5, name, size=12, anchor="end")


def draw_accelerometer(d: Drawing) -> None:
    d.box(60, 62, 330, 170)
    for y, words, size in (
        (92, "Accelerometer, one of", 14),
        (118, "MPU6050 (address 0x68): AD0 to GND", 12),
        (138, "ADXL345 (0x53): SDO to GND, CS to 3.3 V", 12),
        (180, "3.3 V only, wires of at most 20 cm", 12),
    ):
        d.text(76, y, words, size=size, on=True)
    for pin, name in ((1, "VCC"), (3, "SDA"), (5, "SCL"), (9, "GND")):
        pin_wire(d, pin, (390, pin_y(pin)))
        d.text(384, pin_y(pin) + 4, name, size=11, anchor="end", on=True)


def draw_gate(d: Drawing, y: float) -> None:
    """Resistor, pull-down and transistor; the load hangs between its drain and a supply."""
    d.box(560, y - 11, 62, 22, "220 ohm")
    d.wire("out", (560, y), (491, y))
    d.dot("out", 532, y)
    d.wire("out", (532, y), (532, y + 22))
    d.box(501, y + 22, 62, 22, "10 kohm")
    d.ground(532, y + 44)
    d.box(421, y - 26, 70, 52, "N-MOSFET", "3.3 V gate")
    d.text(447, y - 31, "D", size=11)
    d.text(495, y - 5, "G", size=11)
    d.text(424, y + 40, "S", size=11)
    d.ground(442, y + 26)
    d.wire("out", (442, y - 26), (442, y - 60), (407, y - 60))


def draw_lock(d: Drawing) -> None:
    y = 372
    pin_wire(d, 11, (640, pin_y(11)), (640, y), (622, y))
    draw_gate(d, y)
    d.box(325, y - 77, 82, 34, "relay coil")
    d.dot("out", 420, y - 60)
    d.wire("out", (420, y - 60), (420, y - 102))
    d.diode(300, y - 102, 420, "out")
    d.text(360, y - 114, "1N4007", size=11, anchor="middle")
    d.wire("5v", (325, y - 60), (268, y - 60))
    d.dot("5v", 300, y - 60)
    d.wire("5v", (300, y - 60), (300, y - 102))
    d.text(262, y - 56, "5 V", anchor="end")
    d.box(325, y - 22, 82, 40, "contact", "COM   NO")
    d.box(60, y - 32, 170, 36, "door strike, fail-secure", "(locked without power)")
    d.box(60, y + 24, 170, 30, "its own 12 V supply")
    d.wire("5v", (325, y + 4), (290, y + 4), (290, y + 32), (230, y + 32))
    d.text(236, y + 27, "+", size=14)
    d.wire("5v", (325, y - 12), (230, y - 12))
    d.wire("gnd", (60, y - 14), (40, y - 14), (40, y + 39), (60, y + 39))
    d.text(45, y + 56, "-", size=16)
    d.text(60, y + 74, "and a diode across the strike, bar to +, as across the coil", size=11)


def draw_siren(d: Drawing) -> None:
    y = 580
    pin_wire(d, 13, (668, pin_y(13)), (668, y), (622, y))
    draw_gate(d, y)
    d.box(235, y - 84, 150, 48, "siren or sounder,", "up to 1 A")
    d.wire("out", (407, y - 60), (385, y - 60))
    d.text(390, y - 66, "-", size=16)
    d.dot("out", 410, y - 60)
    d.wire("out", (410, y - 60), (410, y - 106))
    d.diode(210, y - 106, 410, "out")
    d.text(310, y - 118, "1N4007", size=11, anchor="middle")
    d.wire("5v", (235, y - 60), (150, y - 60))
    d.text(222, y - 66, "+", size=14)
    d.dot("5v", 210, y - 60)
    d.wire("5v", (210, y - 60), (210, y - 106))
    d.text(144, y - 64, "5 V if below 0.2 A,", anchor="end", size=12)
    d.text(144, y - 49, "else its supply's +", anchor="end", size=12)


def draw_led(d: Drawing) -> None:
    y = 712
    pin_wire(d, 15, (696, pin_y(15)), (696, y), (622, y))
    d.box(560, y - 11, 62, 22, "330 ohm")
    d.diode(440, y, 560, "out")
    d.text(500, y - 14, "LED", size=12, anchor="middle")
    d.ground(440, y)
    d.text(420, y + 5, "status: a flash each 3 s is well", anchor="end")


def draw_button(d: Drawing, pin: int, x: float, y: float, words: str) -> None:
    pin_wire(d, pin, (x, pin_y(pin)), (x, y), (540, y))
    d.dot("in", 540, y)
    d.wire("in", (540, y), (492, y - 16))
    d.dot("gnd", 484, y)
    d.wire("gnd", (484, y), (440, y))
    d.ground(440, y)
    d.text(420, y + 5, words, anchor="end")


def draw() -> str:
    d = Drawing()
    draw_accelerometer(d)
    draw_lock(d)
    draw_siren(d)
    draw_led(d)
    draw_button(d, 29, 724, 786, "cancel: press; held 3 s: an alarm was looked after")
    draw_button(d, 31, 748, 850, "help: press")
    draw_header(d)
    d.text(
        60,
        905,
        "GND signs are all one: any GND pin; the minus of a siren's own supply joins it, "
        "the strike's does not.",
        size=12,
    )
    d.text(60, 921, "Only one of the header's 3.3 V and 5 V pins each is needed.", size=12)
    return d.svg()


if __name__ == "__main__":
    default = Path(__file__).resolve().parents[1] / "docs" / "wiring.svg"
    Path(sys.argv[1] if len(sys.argv) > 1 else default).write_text(draw())
