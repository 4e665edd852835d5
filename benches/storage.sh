#!/usr/bin/env bash
# The storage-only path beside fio: the same file, block size, threads and depth, turn by turn in one run.
#
#   benches/storage.sh FOLDER [ROUNDS]
#
# Writes a file of 2 GiB into FOLDER (on XFS or ext4) and deletes it at the end. fio is taken from PATH. CPU seconds are
# those of the whole process, as the kernel counts them.
set -euo pipefail
folder=$(realpath "${1:?name a folder on the drive to be measured}")
rounds=${2:-5}
cd "$(dirname "$0")/.."
command -v fio >/dev/null || { echo "fio is not installed: apt install fio" >&2; exit 69; }
cargo build --release --quiet --bin gdsboot-validator
file=$folder/gdsboot-fio-$$
trap 'rm -f "$file"' EXIT
dd if=/dev/urandom of="$file" bs=1M count=2048 conv=fsync status=none

python3 - "$PWD/target/release/gdsboot-validator" "$file" "$rounds" <<'PY'
import json, os, statistics, subprocess, sys

validator, path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
size, seconds = os.path.getsize(path), 4
shapes = [("sequential", 1 << 20, 1, 16), ("sequential", 1 << 20, 2, 8), ("random", 4096, 1, 32), ("random", 4096, 2, 64)]


def run(command):
    """Standard output and the CPU seconds of the process."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 2):
        sys.exit(f"failed with {child.returncode}: {' '.join(command)}")
    return json.loads(out), usage.ru_utime + usage.ru_stime


def ours(order, block, threads, depth):
    job = f"read,{order},{block},{threads}x{depth},{seconds}s"
    out, cpu = run([validator, "bench", "--file", path, "--job", job, "--json"])
    done = out["targets"][0]["jobs"][0]
    assert done["samples"]["engine"] == "io_uring" and done["samples"]["error_count"] == 0, done["samples"]
    gib = sum(done["samples"]["bytes"]) / 2**30
    return done["figures"]["gib_per_second"], cpu / gib


def fio(order, block, threads, depth):
    part = size // threads
    where = ["--rw=randread", f"--size={size}", "--norandommap", "--random_generator=tausworthe64"]
    if order == "sequential":
        where = ["--rw=read", f"--size={part}", f"--offset_increment={part}"]
    out, cpu = run(["fio", "--name=x", f"--filename={path}", "--direct=1", "--ioengine=io_uring", f"--bs={block}",
                    f"--iodepth={depth}", f"--numjobs={threads}", "--time_based", f"--runtime={seconds}", "--thread",
                    "--group_reporting", "--output-format=json", *where])
    read = out["jobs"][0]["read"]
    return read["io_bytes"] / 2**30 / (read["runtime"] / 1000), cpu / (read["io_bytes"] / 2**30)


print("| read | gdsboot GiB/s | fio GiB/s | ratio | gdsboot CPU s/GiB | fio CPU s/GiB |\n|---|---|---|---|---|---|")
for shape in shapes:
    order, block, threads, depth = shape
    pairs = []
    for n in range(rounds):
        # Whoever is first may find the drive in another state.
        turn = [ours, fio] if n % 2 == 0 else [fio, ours]
        got = {which: which(*shape) for which in turn}
        pairs.append((got[ours], got[fio]))
    middle = lambda side, value: statistics.median(pair[side][value] for pair in pairs)
    ratio = statistics.median(a[0] / b[0] for a, b in pairs)
    print(f"| {order} {block >> 10} KiB, {threads} x {depth} | {middle(0, 0):.2f} | {middle(1, 0):.2f} | {ratio:.3f} "
          f"| {middle(0, 1):.3f} | {middle(1, 1):.3f} |", flush=True)
PY
