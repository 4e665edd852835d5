#!/bin/sh
# Makes images.tar.zst anew beside this file: RAW is a small disk image, and everything else is made of it by qemu-img.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$1" "$work/raw.img"
cd "$work"

convert() { qemu-img convert -q -f raw -O qcow2 "$@"; }
convert raw.img plain.qcow2
convert -o compat=0.10 raw.img version-2.qcow2
convert -c raw.img deflate.qcow2
convert -c -o compression_type=zstd raw.img zstd.qcow2
convert -c -o cluster_size=512 raw.img small-clusters.qcow2
convert -c -o cluster_size=2M,compression_type=zstd raw.img large-clusters.qcow2
convert -o preallocation=metadata raw.img preallocated.qcow2
convert raw.img snapshot.qcow2
qemu-img snapshot -c one snapshot.qcow2
# Zero clusters that are allocated, beside those that are not.
convert raw.img zeros.qcow2
qemu-io -c 'write -z 3M 512k' zeros.qcow2 > /dev/null
# What is refused.
convert -o extended_l2=on raw.img subclusters.qcow2
qemu-img create -q -f qcow2 -b plain.qcow2 -F qcow2 backing.qcow2
convert -o data_file=external.raw,data_file_raw=on raw.img external.qcow2
rm external.raw
convert --object secret,id=key,data=x -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 \
    raw.img encrypted.qcow2
# All that is looked at; behind it is noise.
truncate -s 4K encrypted.qcow2

tar --create --sparse --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -- * |
    zstd -19 -q -f -o "$here/images.tar.zst"
