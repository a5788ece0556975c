"""TensorBoard's event files, written without TensorFlow: records of the protocol buffer `Event`.

A record is its length, a checksum of that, the bytes, and a checksum of those. Of `Event` there is
what scalars need: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """A new event file in a folder.

    Args:
      folder: TensorBoard shows it as one run.
      step: what earlier files say about this step and later ones no longer counts.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     events = EventFile(Path(folder), step=1)
    ...     events.add(1, {"loss": 0.5})
    ...     events.path.name[:20]
    'events.out.tfevents.'
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        session = _field(7, _field(1, 1))  # its status is START
        self._write(_field(3, b"brain.Event:2"), _field(2, step) + session)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add numbers of one step, by their tags."""
        values = (
            _field(1, _field(1, tag.encode()) + _field(2, float(number), "<f"))
            for tag, number in scalars.items()
        )
        self._write(_field(2, step) + _field(5, b"".join(values)))

    def _write(self, *events: bytes) -> None:
        with open(self.path, "ab") as file:
            for event in events:
                event = _field(1, time.time(), "<d") + event
                length = struct.pack("<Q", len(event))
                file.write(length + _checksum(length) + event + _checksum(event))


def _field(number: int, value: int | float | bytes, form: str = "") -> bytes:
    """A field of a protocol buffer: whole numbers, numbers of this form, or bytes."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    if form:
        kind = 1 if form == "<d" else 5
        return _varint(number << 3 | kind) + struct.pack(form, value)
    return _varint(number << 3) + _varint(int(value))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _table() -> list[int]:
    """The CRC-32C of every byte."""
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return found


TABLE = _table()


def crc32c(content: bytes) -> int:
    """The Castagnoli checksum.

    >>> from robustjax.training.event_file import crc32c
    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    found = 0xFFFFFFFF
    for byte in content:
        found = found >> 8 ^ TABLE[(found ^ byte) & 255]
    return found ^ 0xFFFFFFFF


def _checksum(content: bytes) -> bytes:
    """The checksum as records mask it."""
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
