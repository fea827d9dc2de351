"""For gdb: the frames of a core, and what gdb says of every address of the program's code."""
import json

import gdb


def place(pc):
    """File and line of an address, and the functions at it, innermost first."""
    found = gdb.find_pc_line(pc)
    functions = []
    block = gdb.block_for_pc(pc)
    while block and not block.is_static and not block.is_global:
        if block.function:
            functions.append(block.function.print_name)
        block = block.superblock
    file = found.symtab.fullname() if found.symtab else None
    return {"file": file, "line": found.line, "functions": functions}


def stub(pc):
    """The function whose stub in the linkage table holds an address."""
    said = gdb.execute(f"info symbol {pc}", to_string=True)
    return said.split()[0] if "@plt" in said else None


def frames():
    """The stack, innermost first."""
    found = []
    frame = gdb.newest_frame()
    while frame:
        source = frame.find_sal()
        function = frame.function()
        found.append({
            "address": frame.pc(),
            "function": function.print_name if function else frame.name(),
            "file": source.symtab.fullname() if source.symtab else None,
            "line": source.line,
            "inlined": frame.type() == gdb.INLINE_FRAME,
        })
        frame = frame.older()
    return found


def section(name):
    """Addresses of a section in the file."""
    for line in gdb.execute("maint info sections", to_string=True).splitlines():
        words = line.split()
        if name in words:
            start, end = next(word for word in words if "->" in word).split("->")
            return range(int(start, 16), int(end, 16))
    return range(0)


if gdb.selected_thread():
    print(json.dumps(frames()))
else:
    code = {address: place(address) for address in section(".text")}
    stubs = {address: stub(address) for address in section(".plt")}
    print(json.dumps({"code": code, "stubs": stubs}))
