#!/usr/bin/env bash
# The storage-only path beside fio: the same file, block size, threads and depth, turn by turn in one run.
#
#   benches/storage.sh FOLDER [ROUNDS]   a file of 2 GiB on that folder's filesystem (XFS or ext4), deleted at the end
#   benches/storage.sh ram [ROUNDS]      a loop device over memory, which needs root: no drive's moods
#
# fio is taken from PATH. CPU seconds are those of the measured time, as each program counts its own; both are given the
# same time, and whoever is first changes with each round.
set -euo pipefail
where=${1:?name a folder on the drive to be measured, or say ram}
rounds=${2:-5}
[ "$where" = ram ] || where=$(realpath "$where")
cd "$(dirname "$0")/.."
command -v fio >/dev/null || { echo "fio is not installed: apt install fio" >&2; exit 69; }
cargo build --release --quiet --bin gdsboot-validator
folder=$where
[ "$where" = ram ] && folder=/dev/shm
file=$folder/gdsboot-fio-$$
loop=
trap '[ -z "$loop" ] || losetup -d "$loop"; rm -f "$file"' EXIT
dd if=/dev/urandom of="$file" bs=1M count=2048 conv=fsync status=none
target=$file
if [ "$where" = ram ]; then
  loop=$(losetup --find --show --read-only --direct-io=on "$file")
  target=$loop
fi

python3 - "$PWD/target/release/gdsboot-validator" "$target" "$rounds" <<'PY'
import json, os, statistics, subprocess, sys

validator, path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
size, seconds = 2048 << 20, 4
shapes = [("sequential", 1 << 20, 1, 16), ("sequential", 1 << 20, 2, 8), ("random", 4096, 1, 32), ("random", 4096, 2, 64)]


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode not in (0, 2):
        sys.exit(f"failed with {done.returncode}: {' '.join(command)}")
    return json.loads(done.stdout)


def ours(order, block, threads, depth):
    job = f"read,{order},{block},{threads}x{depth},{seconds}s"
    out = run([validator, "bench", "--storage-only", "--file", path, "--job", job, "--json"])
    samples = out["raw"][0]["ran"]["samples"]
    assert samples["engine"] == "io_uring" and samples["error_count"] == 0, samples
    figures = out["results"]["measurements"][0]["figures"]
    return figures["gib_per_second"], figures["cpu_seconds_per_gib"]


def fio(order, block, threads, depth):
    part = size // threads
    where = ["--rw=randread", f"--size={size}", "--norandommap", "--random_generator=tausworthe64"]
    if order == "sequential":
        where = ["--rw=read", f"--size={part}", f"--offset_increment={part}"]
    out = run(["fio", "--name=x", f"--filename={path}", "--readonly", "--direct=1", "--ioengine=io_uring", f"--bs={block}",
               f"--iodepth={depth}", f"--numjobs={threads}", "--time_based", f"--runtime={seconds}", "--thread",
               "--group_reporting", "--output-format=json", *where])
    job = out["jobs"][0]
    read = job["read"]
    gib = read["io_bytes"] / 2**30
    # Percent of one CPU, of all threads together.
    cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000
    return gib / (read["runtime"] / 1000), cpu / gib


print("| read | gdsboot GiB/s | fio GiB/s | ratio | gdsboot CPU s/GiB | fio CPU s/GiB |\n|---|---|---|---|---|---|")
for shape in shapes:
    order, block, threads, depth = shape
    pairs = []
    for n in range(rounds):
        turn = [ours, fio] if n % 2 == 0 else [fio, ours]
        got = {which: which(*shape) for which in turn}
        pairs.append((got[ours], got[fio]))
    middle = lambda side, value: statistics.median(pair[side][value] for pair in pairs)
    ratio = statistics.median(a[0] / b[0] for a, b in pairs)
    print(f"| {order} {block >> 10} KiB, {threads} x {depth} | {middle(0, 0):.2f} | {middle(1, 0):.2f} | {ratio:.3f} "
          f"| {middle(0, 1):.3f} | {middle(1, 1):.3f} |", flush=True)
PY
