#!/usr/bin/env python3
"""Overwrites memory inside an ELF core.

damage.py CORE ADDRESS HEX    the bytes HEX at ADDRESS (0x...)
damage.py CORE ADDRESS +N     the 8-byte word at ADDRESS, plus N (may be negative)

Prints the bytes that were there, in hex, so that a second call can undo it.
"""

import struct
import sys


def file_offset(core, address, length):
    core.seek(0)
    header = core.read(64)
    (table,) = struct.unpack_from("<Q", header, 32)
    entry, count = struct.unpack_from("<HH", header, 54)
    for i in range(count):
        core.seek(table + i * entry)
        kind, _, offset, start, _, size, _, _ = struct.unpack("<IIQQQQQQ", core.read(56))
        if kind == 1 and start <= address and address + length <= start + size:
            return offset + address - start
    sys.exit(f"{address:#x} is not in this core")


def main(path, address, change):
    address = int(address, 16)
    with open(path, "r+b") as core:
        if change[0] in "+-":
            place = file_offset(core, address, 8)
            core.seek(place)
            (word,) = struct.unpack("<Q", core.read(8))
            new = struct.pack("<Q", (word + int(change)) % 2**64)
        else:
            new = bytes.fromhex(change)
            place = file_offset(core, address, len(new))
        core.seek(place)
        print(core.read(len(new)).hex())
        core.seek(place)
        core.write(new)


if __name__ == "__main__":
    main(*sys.argv[1:])
