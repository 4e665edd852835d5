#!/bin/sh
# Stands in for `make` while nvidia-fs's `configure` puts some thirty questions to the kernel headers. Each question is
# a one-file module, for which a whole kbuild run (and a second one to clean up) costs several times what the compiler
# does. An empty module is compiled by kbuild itself; its compiler command then serves for all questions, because they
# have the same file name. As modpost would, a program that uses a symbol which the kernel does not export gets a "no".
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

# Compiles test.c with the command in the file $1.
compile() {
    rm -f test.o
    # Until 6.12 kbuild compiles in the kernel's build folder and names files in full, later in the module's folder.
    if grep -q '/test\.c$' "$1"; then
        (cd "$KERNEL_BUILD" && eval "$(cat "$1") $flags")
    else
        eval "$(cat "$1") $flags"
    fi
    [ -f test.o ]
    for symbol in $(nm -u test.o | sed 's/.* //'); do
        grep -q "	$symbol	" "$KERNEL_BUILD/Module.symvers" || {
            echo "$symbol is not exported by the kernel"
            exit 1
        }
    done
}

if [ ! -s "$LEARNED" ]; then
    mv test.c question.c
    echo '#include "test.h"' >test.c
    (
        # Without BTF: kbuild makes it from debug information, which nobody asks for here.
        PATH=$KBUILD_PATH make CONFIG_DEBUG_INFO_BTF_MODULES=
        # `savedcmd_<object> := <command> ; <objtool>` (before 6.4: `cmd_<object>`), escaped for make.
        sed -n -e '1s/^[a-z]*cmd_[^ ]* *:= *//' -e '1s/ *; .*//' -e '1s/\$\$/$/g' -e '1s/\\#/#/g' -e 1p .test.o.cmd \
            >command
        flags=
        compile "$PWD/command"
    ) >"$LEARNED.log" 2>&1
    mv command "$LEARNED"
    mv question.c test.c
fi
compile "$LEARNED"
