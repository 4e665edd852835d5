#!/bin/sh
# Stands in for `make` while nvidia-fs's `configure` puts some thirty questions to the kernel headers. Each question is
# a one-file module, for which a whole kbuild run (and a second one to clean up) costs ten times what the compiler does.
# The first question is compiled by kbuild itself; its compiler command then serves for all, because they have the same
# file name. As modpost would, a program that uses a symbol which the kernel does not export gets a "no".
#
# Set by the caller: KBUILD_PATH (PATH without this file), KERNEL_BUILD (the kernel's build folder), LEARNED (a file for
# the command, beside which kbuild's output goes; where it was not written, no answer is worth anything).
set -eu

flags=
for argument in "$@"; do
    case $argument in
    clean)
        rm -f test.o
        exit 0
        ;;
    KCFLAGS=*) flags=${argument#KCFLAGS=} ;;
    *)
        echo "configure asked make for $argument, which is not known here" >&2
        exit 2
        ;;
    esac
done

if [ ! -s "$LEARNED" ]; then
    cp test.c question.c
    echo '#include "test.h"' >test.c
    # Without BTF: kbuild makes it from debug information, which nobody asks for here.
    PATH=$KBUILD_PATH make CONFIG_DEBUG_INFO_BTF_MODULES= >"$LEARNED.log" 2>&1
    # `savedcmd_<object> := <command> ; <objtool>` (before 6.4: `cmd_<object>`), escaped for make.
    sed -n -e '1s/^[a-z]*cmd_[^ ]* *:= *//' -e '1s/ *; .*//' -e '1s/\$\$/$/g' -e '1s/\\#/#/g' -e 1p .test.o.cmd >command
    grep -q 'test\.c$' command
    mv question.c test.c
    mv command "$LEARNED"
fi

rm -f test.o
here=$PWD
cd "$KERNEL_BUILD"
eval "$(cat "$LEARNED") $flags"
cd "$here"
nm -u test.o | while read -r _ symbol; do
    grep -q "	$symbol	" "$KERNEL_BUILD/Module.symvers" || {
        echo "$symbol is not exported by the kernel"
        exit 1
    }
done
