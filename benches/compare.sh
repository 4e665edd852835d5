#!/usr/bin/env bash
# The numbers of the README, measured on this machine, beside the peer (mkosi) where it is installed.
#
#   benches/compare.sh [PROFILE]
#
# Builds gdsboot, starts from an empty cache (some 400 MB are downloaded) and prints a Markdown table. mkosi (27 or newer)
# is taken from PATH and needs root; without it the peer's column stays empty. It is timed with its packages and its
# tools tree already there, and builds no kernel modules. Nothing outside the work folder is written.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-debian-13}
work=$(mktemp -d)
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT

cargo build --release --quiet
gdsboot=$PWD/target/release/gdsboot
lock=$work/lock.toml
pool=$work/pool-cache

# Seconds and peak memory (KiB) of a command, without its output.
measure() {
  python3 - "$@" <<'PY'
import os, resource, subprocess, sys, time
start = time.monotonic()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
seconds = time.monotonic() - start
if status.returncode not in (0, 2):
    sys.stderr.write(status.stderr.decode(errors="replace")); sys.exit("failed: " + " ".join(sys.argv[1:]))
print(f"{seconds:.2f} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
PY
}
build() { measure "$gdsboot" --progress none --cache "$1" build "$profile" --lock "$lock" -o "$2"; }
row() { printf '| %s | %s | %s |\n' "$1" "$2" "$3"; }
# A cache that has the pool and the compiled modules, and nothing else.
warm() { mkdir -p "$1"; cp -rl "$pool/pool" "$pool/modules" "$1/"; }

"$gdsboot" --progress none --cache "$pool" lock "$profile" --lock "$lock" >/dev/null

printf '%s, %s cores, %s\n\n' "$profile" "$(nproc)" "$(uname -sr)"
row "what" "gdsboot" "mkosi"
row "---" "---" "---"

read -r cold _ < <(build "$pool" "$work/cold.img")
row "build from an empty cache, downloads and module compile included" "$cold s" ""

times=()
for round in 1 2 3; do
  warm "$work/warm$round"
  read -r seconds memory < <(build "$work/warm$round" "$work/warm.img")
  times+=("$seconds")
  [ "$round" = 3 ] || { chmod -R u+w "$work/warm$round"; rm -rf "${work:?}/warm$round"; }
done
middle=$(printf '%s\n' "${times[@]}" | sort -n | sed -n 2p)
peer=""
if command -v mkosi >/dev/null; then
  # The mirror that this host's apt uses, as mkosi's only source.
  url=$(find /etc/apt/sources.list /etc/apt/sources.list.d -type f 2>/dev/null | xargs cat |
    sed -nE 's/^(URIs:|deb( \[[^]]*\])?) *(https?:[^ ]*\/debian)\/?( .*)?$/\3/p' | sed -n 1p) || true
  mkdir -p "$work/sandbox/etc/apt/sources.list.d" "$work"/mkosi-{cache,work,out}
  printf '%s\n' "Types: deb" "URIs: $url" "Suites: trixie trixie-updates" \
    "Components: main contrib non-free non-free-firmware" \
    "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" >"$work/sandbox/etc/apt/sources.list.d/mkosi.sources"
  peer_build=(mkosi --directory "$PWD/benches/mkosi" --mirror "${url%/debian}" --sandbox-tree "$work/sandbox"
    --tools-tree default --tools-tree-distribution debian --tools-tree-release trixie
    --tools-tree-mirror "${url%/debian}" --tools-tree-sandbox-tree "$work/sandbox"
    --output-directory "$work/mkosi-out" --cache-directory "$work/mkosi-cache" --workspace-directory "$work/mkosi-work"
    --force build)
  measure "${peer_build[@]}" >/dev/null
  read -r peer_seconds _ < <(measure "${peer_build[@]}")
  peer="$peer_seconds s (without the modules)"
fi
row "build, pool and modules warm, nothing else cached (median of 3)" "$middle s" "$peer"

read -r nothing _ < <(build "$work/warm3" "$work/warm.img")
row "build again, nothing changed" "$nothing s" ""

# Another validator, without touching the sources: a byte behind the end of the program.
mkdir "$work/programs"
cp target/programs/x86_64-unknown-linux-gnu/release/gdsboot-{validator,dma} "$work/programs/"
printf x >>"$work/programs/gdsboot-validator"
read -r validator _ < <(measure "$gdsboot" --progress none --cache "$work/warm3" build "$profile" --lock "$lock" \
  -o "$work/warm.img" --programs "$work/programs")
row "build after only the validator changed (its own compilation left out)" "$validator s" ""

row "peak memory of a build, any one process" "$((memory / 1024)) MiB" ""
peer_size=""
[ -f "$work/mkosi-out/peer.raw" ] && peer_size="$(du -B1000000 "$work/mkosi-out/peer.raw" | cut -f1) MB on disk"
row "image file" "$(stat -c %s "$work/warm.img" | awk '{printf "%.0f MB", $1 / 1e6}'), $(du -B1000000 "$work/warm.img" | cut -f1) MB on disk" "$peer_size"

"$gdsboot" --progress none --cache "$pool" smoke "$work/warm.img" --lock "$lock" --firmware uefi >"$work/smoke.txt" || [ $? = 2 ]
printf '\nPower-on to verdict in QEMU:\n\n'
grep -A2 '^seconds' "$work/smoke.txt"
tail -n 1 "$work/smoke.txt"
