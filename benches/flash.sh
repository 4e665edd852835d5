#!/usr/bin/env bash
# gdsboot flash beside dd bs=4M conv=fsync: the same image to the same target, turn by turn in one run.
#
#   benches/flash.sh IMAGE FOLDER [ROUNDS]   to a new file in that folder, deleted at the end
#
# Rates are of the bytes that each writes; gdsboot's is that of its writing, not of reading back. It writes more zeros in
# the end (an empty report partition has only its tables written) and no hole of the image is left out by either.
set -euo pipefail
image=$(realpath "${1:?name an image that gdsboot build wrote}")
folder=$(realpath "${2:?name a folder on the drive to be measured}")
rounds=${3:-9}
cd "$(dirname "$0")/.."
cargo build --release --quiet --bin gdsboot
stick=$folder/gdsboot-flash-$$
trap 'rm -f "$stick"' EXIT

python3 - "$PWD/target/release/gdsboot" "$image" "$stick" "$rounds" <<'PY'
import os, re, statistics, subprocess, sys, time

gdsboot, image, stick, rounds = *sys.argv[1:4], int(sys.argv[4])
size = os.path.getsize(image)


def fresh():
    # Both write to blocks that the filesystem has allocated, as a stick's are.
    with open(stick, "wb") as out:
        os.posix_fallocate(out.fileno(), 0, size)
        os.fsync(out.fileno())
    os.sync()


def dd():
    fresh()
    begun = time.monotonic()
    subprocess.run(["dd", f"if={image}", f"of={stick}", "bs=4M", "conv=fsync,notrunc", "status=none"], check=True)
    return size / (time.monotonic() - begun)


def flash():
    fresh()
    out = subprocess.run([gdsboot, "--progress", "none", "flash", "--json", image, stick], check=True, stdout=subprocess.PIPE)
    import json
    done = json.loads(out.stdout)
    return done["bytes"] / done["writing_seconds"]


pairs = []
for n in range(rounds):
    turn = [flash, dd] if n % 2 == 0 else [dd, flash]
    got = {which: which() for which in turn}
    pairs.append((got[flash], got[dd]))
print("| gdsboot flash MB/s | dd MB/s | ratio |\n|---|---|---|")
print(f"| {statistics.median(a for a, _ in pairs) / 1e6:.0f} | {statistics.median(b for _, b in pairs) / 1e6:.0f} "
      f"| {statistics.median(a / b for a, b in pairs):.3f} |")
PY
