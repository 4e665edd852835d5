#!/bin/sh
# starts the guest with qemu-system-x86_64
set -eu
IMAGE=/var/lib/gdsboot.img
exec qemu-system-x86_64 -name 'gds "one"' \
  -machine q35,accel=kvm -cpu host,host-phys-bits=on -smp 8 -m 64G \
  -drive if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \
  -drive if=pflash,unit=1,format=raw,file=/var/lib/vars.fd \
  -device pcie-root-port,id=rp0,bus=pcie.0,addr=0x1c.0,chassis=1,multifunction=on \
  -device pcie-root-port,id=rp1,bus=pcie.0,addr=0x1c.1,chassis=2 \
  -device vfio-pci,host=0000:41:00.0,bus=rp0 \
  -device vfio-pci,host=0000:42:00.0,bus=rp1 \
  -drive "if=none,id=image,format=raw,file=$IMAGE" -device virtio-blk-pci,drive=image \
  -zebra stripes
