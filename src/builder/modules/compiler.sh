#!/bin/sh
# Stands before the compiler of the same name. The driver's conftest and nvidia-fs's configure take every failure of the
# compiler for a "no" and throw its words away; where the disk is full or a process was killed, that would build the
# wrong thing without a word. So such a failure takes away the file that says that the compiler works. (A file that has
# to be written would not come into being on a full disk.)
exec 3>&1
said=$("/usr/bin/${0##*/}" "$@" 2>&1 >&3 3>&-)
status=$?
[ -z "$said" ] || printf '%s\n' "$said" >&2
[ "$status" -eq 0 ] && exit
case $said in
*"signal terminated program"* | *"internal compiler error"* | *"No space left on device"* | *"Input/output error"* | \
    *"rror writing to"* | *"annot allocate memory"* | *"virtual memory exhausted"* | *"annot execute"* | \
    *"error while loading shared libraries"*)
    rm -f /build/compiler-works
    ;;
esac
exit "$status"
