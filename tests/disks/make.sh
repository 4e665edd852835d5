#!/bin/sh
# Makes images.tar.zst anew beside this file.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

image() { truncate -s "$2" "$1"; }

image ext4 16M;      mkfs.ext4 -q -F ext4
image xfs 300M;      mkfs.xfs -q xfs
image btrfs 110M;    mkfs.btrfs -q btrfs >&2
image f2fs 64M;      mkfs.f2fs -q f2fs >&2
image ntfs 16M;      mkntfs -F -Q -q ntfs >&2
image exfat 16M;     mkfs.exfat exfat >&2
image fat16 16M;     mkfs.vfat -F 16 fat16 >&2
image fat32 40M;     mkfs.vfat -F 32 fat32 >&2
image udf 16M;       mkfs.udf --media-type=hd udf >&2
image udf-4096 16M;  mkfs.udf --media-type=hd -b 4096 udf-4096 >&2
image swap 16M;      mkswap swap >&2
image jfs 17M;       jfs_mkfs -q jfs >&2
image reiserfs 33M;  mkfs.reiserfs -q -ff reiserfs >&2
image nilfs2 130M;   mkfs.nilfs2 -f -B 16 nilfs2 >&2
image bcache 16M;    make-bcache -B bcache >&2
image gpt 16M;       sgdisk -n 1:0:+4M gpt >&2
image lvm2 16M
loop=$(losetup -f --show lvm2)
mkdir lvm
LVM_SYSTEM_DIR=$work/lvm lvm pvcreate -y "$loop" \
    --config "devices{use_devicesfile=0 filter=[\"a|^$loop\$|\",\"r|.*|\"]} global{locking_dir=\"$work/lvm\"}" >&2
losetup -d "$loop"
for version in 1 2; do
    image luks$version 32M
    echo x | cryptsetup luksFormat -q --type luks$version --pbkdf pbkdf2 --pbkdf-force-iterations 1000 luks$version
    # Key slots are noise that would only take room.
    truncate -s 32K luks$version
    truncate -s 32M luks$version
done
image data 1M
image verity 16M;    veritysetup format data verity >&2
mkdir folder
echo x > folder/file
genisoimage -quiet -R -o iso9660 folder
mksquashfs folder squashfs -quiet -no-progress >&2
rm -r data folder lvm

tar --create --sparse --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -- * |
    zstd -19 -q -f -o "$here/images.tar.zst"
