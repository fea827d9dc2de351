"""Writes the frames of every thread of a core to the file that STACKS names, as JSON: for each thread
its ID and, innermost first, [program counter, frame's address, name].

Left out are frames that are not on the stack: inlined functions, and tail calls that gdb infers
from debug information. A gdb.Frame without an older one carries the identity of the frame that it
called; there `info frame` tells the address.
"""
import json
import os
import re

import gdb

NOT_ON_THE_STACK = (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME)


def address(frame, older):
    if older is None and frame.level() > 0:
        frame.select()
        said = gdb.execute("info frame", to_string=True)
        found = re.search(r"Previous frame's sp is (0x[0-9a-f]+)", said)
    else:
        found = re.search(r"stack=(0x[0-9a-f]+)", str(frame))
    return found.group(1) if found else None


def older_than(frame):
    try:
        return frame.older()
    except gdb.error:
        return None


def frames(thread):
    thread.switch()
    frame = gdb.newest_frame()
    while frame is not None:
        older = older_than(frame)
        if frame.type() not in NOT_ON_THE_STACK:
            yield [hex(frame.pc()), address(frame, older), frame.name()]
        frame = older


for setting in ("past-main on", "past-entry on", "limit unlimited"):
    gdb.execute("set backtrace " + setting)
threads = gdb.selected_inferior().threads()
found = [{"tid": thread.ptid[1], "frames": list(frames(thread))} for thread in threads]
with open(os.environ["STACKS"], "w", encoding="utf-8") as file:
    json.dump(found, file)
