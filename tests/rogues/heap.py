"""Tells how many bytes a large block takes from the system after a larger one was freed."""

from __future__ import annotations

import ctypes
import sys

from edge_rt.runtime.link import parent_connection

FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd")  # mallinfo(3); hblkhd: mapped bytes


class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (*FIELDS, "a", "b", "c", "d", "e")]


libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.mallinfo2.restype = Info

libc.free(libc.malloc(16 << 20))
before = libc.mallinfo2().hblkhd
libc.malloc(8 << 20)
parent_connection(sys.argv).sendall(str(libc.mallinfo2().hblkhd - before).encode())
