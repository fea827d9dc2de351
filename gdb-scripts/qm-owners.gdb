# Every used fragment of a q_malloc pool, one line each, in plain gdb language.
#
# For a gdb without Python (kamailio.py does more and is hundreds of times
# faster). Works on stripped builds that record owners (memory debugging on,
# the default), x86-64, on live processes and cores.
#
#   gdb -nx -batch -p PID -ex 'set $hdr = 56' -x qm-owners.gdb > fragments.txt
#   gdb -nx -batch -ex 'set $hdr = 64' -ex 'set $shm = 1' -x qm-owners.gdb PROGRAM CORE > fragments.txt
#
# $hdr   bytes of a fragment's header: 56 (5.2 to 5.6), 64 (5.8 and later, the
#        default), 128 (development builds with backtraces)
# $shm   1 for the shared pool; 0, the default, for the private one
# $skip  used fragments to leave out at the beginning (start-up), default 0
#
# A line: used SIZE FILE FUNCTION LINE MODULE. README.md shows how to sum them.
# At the end $broken is 0, or 1 if the chain was damaged: the last line says where.

set pagination off
set confirm off
set language c
set print address off
set print elements 200

if $_isvoid($hdr)
  set $hdr = 64
end
if $_isvoid($shm)
  set $shm = 0
end
if $_isvoid($skip)
  set $skip = 0
end

define qm_owners
  set $broken = 1
  if $shm
    set $root = (unsigned long)&_shm_root
  else
    set $root = (unsigned long)&_pkg_root
  end
  set $block = *(unsigned long *)($root + 16)
  set $size  = *(unsigned long *)($block + 8)
  set $first = *(unsigned long *)($block + 48)
  set $last  = *(unsigned long *)($block + 56)
  set $end   = $last + 48
  set $check = 48
  if $hdr == 128
    set $check = 120
  end

  # The manager and the layout, before anything is believed.
  if $first <= $block || $last <= $first || $end > $block + $size
    printf "REFUSED: the block at %#lx is not q_malloc's (started with -x fm or tlsf?), or it is damaged\n", $block
  else
    # 56 and 64 have the header's check word at one place: only the trailer tells them apart.
    set $len = *(unsigned long *)$first
    set $fits = 0
    if *(unsigned long *)($first + $check) == 0xf0f0f0f0 && $len < $end - $first - $hdr
      set $tail = $first + $hdr + $len
      if *(unsigned long *)$tail == 0xc0c0c0c0 && *(unsigned long *)($tail + 8) == 0xabcdefed
        set $fits = 1
      end
    end
    if $fits
      qm_walk
    else
      printf "REFUSED: the first fragment, at %#lx, has no check words for a header of %d bytes: set $hdr to 56, 64 or 128 as the build needs (or this fragment is damaged)\n", $first, $hdr
    end
  end
end

define qm_walk
  set $at = $first
  set $used = 0
  set $free = 0
  set $bytes = 0
  set $why = 0
  while $at < $end && $why == 0
    # Nothing is read beyond the pool: the header must fit, then what it says.
    if $at + $hdr + 48 > $end
      set $why = 1
    else
      set $len = *(unsigned long *)$at
      if *(unsigned long *)($at + $check) != 0xf0f0f0f0
        set $why = 2
      else
        if $len == 0 || ($len & 7) != 0 || $len > $end - $at - $hdr - 48
          set $why = 3
        else
          set $tail = $at + $hdr + $len
          if *(unsigned long *)$tail != 0xc0c0c0c0 || *(unsigned long *)($tail + 8) != 0xabcdefed || *(unsigned long *)($tail + 32) != $len
            set $why = 4
          end
        end
      end
    end
    if $why == 0
      if *(unsigned long *)($at + 8) != 0
        set $free = $free + 1
      else
        set $used = $used + 1
        set $bytes = $bytes + $len
        if $used > $skip
          # `output` shows a pointer that leads nowhere as <error...>; printf would end the script.
          printf "used %lu ", $len
          output *(char **)($at + 16)
          printf " "
          output *(char **)($at + 24)
          printf " %lu ", *(unsigned long *)($at + 40)
          output *(char **)($at + 32)
          printf "\n"
        end
      end
      set $at = $tail + 48
    end
  end
  printf "total %lu used fragments, %lu bytes, %lu free fragments\n", $used, $bytes, $free
  if $why == 0
    set $broken = 0
  end
  if $why == 1
    printf "DAMAGED at %#lx: no room for a fragment before the pool's end\n", $at
  end
  if $why == 2
    printf "DAMAGED at %#lx: check word overwritten (written past the end of the fragment before?)\n", $at
  end
  if $why == 3
    printf "DAMAGED at %#lx: impossible size %#lx\n", $at, $len
  end
  if $why == 4
    printf "DAMAGED at %#lx: the trailer behind %lu bytes does not match (written past the end of this fragment?)\n", $at, $len
  end
end

qm_owners
