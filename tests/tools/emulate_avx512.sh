#!/usr/bin/env bash
# C++ tests on an emulated CPU with AVX-512 and VNNI: tests/tools/emulate_avx512.sh [NAME...], each tests/cpp/test_NAME.
# Bochs boots Debian's kernel from a CD with the tests, whose output comes over the serial port. The time says nothing.
# On Debian 12: apt install bochs bochs-term bochsbios busybox-static isolinux syslinux-common xorriso
# ISAS: what RECFUSE_ISA is, in turn. BOCHS: another Bochs (3.0), built --with-nogui --enable-all-optimizations
# --enable-avx --enable-evex and without its debugger, which is faster.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- parallel_for canonical isas als cosine_knn model_requests fuse_topk model
read -ra isas <<<"${ISAS:-avx512 avx512_vnni}"
root=$PWD work=$PWD/build/avx512
for tool in "${BOCHS:-bochs}" busybox xorriso script apt-get; do
  command -v "$tool" >/dev/null || { echo "needs $tool; see the head of $0" >&2; exit 1; }
done

cmake -S . -B "$work" -G Ninja -DRECFUSE_PYTHON=OFF -DRECFUSE_CUDA=OFF -DRECFUSE_TESTS=ON \
  -DCMAKE_EXE_LINKER_FLAGS=-static >/dev/null
cmake --build "$work" --target "${@/#/test_}" -- --quiet

if [ ! -d "$work/kernel/boot" ]; then # unpacked, not installed
  image=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2}')
  (cd "$work" && apt-get download "$image" && dpkg-deb -x "$image"_*.deb kernel)
fi

# What the kernel starts: it mounts the CD and runs the tests there. The model files lie where the tests look for them.
rm -rf "$work/init" "$work/cd"
mkdir -p "$work"/init/{bin,lib,proc,sys,dev,cd} "$work/cd/isolinux"
cp "$(command -v busybox)" "$work/init/bin/"
modules=(drivers/scsi/scsi_common drivers/scsi/scsi_mod drivers/ata/libata drivers/ata/ata_piix drivers/cdrom/cdrom
  drivers/scsi/sr_mod fs/isofs/isofs)
for module in "${modules[@]}"; do cp "$work"/kernel/lib/modules/*/kernel/"$module".ko "$work/init/lib/"; done
cat >"$work/init/init" <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in ${modules[@]##*/}; do insmod /lib/\$module.ko; done
until mount -t iso9660 -o ro /dev/sr0 /cd; do sleep 1; done
mkdir -p $root/tests/data; ln -s /cd/model_files $root/tests/data/model_files
for isa in ${isas[@]}; do
  for name in $*; do
    echo "--- \$isa test_\$name"
    RECFUSE_ISA=\$isa RECFUSE_TEST_EMULATED=1 /cd/test_\$name 2>&1 && echo "passed" || echo "FAILED: \$?"
  done
done
sleep 2 # until the serial port has sent all
poweroff -f
END
chmod +x "$work/init/init"
(cd "$work/init" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/cd/isolinux/init.gz"

# The first three are features of which Bochs 2.7 gives wrong sizes of saved registers (XSAVEC, XSAVES, PKU); with the
# last one (FSRM) the kernel patches itself wrongly on 2.7 and 3.0.
cp "$work"/kernel/boot/vmlinuz-* "$work/cd/isolinux/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/cd/isolinux/"
cat >"$work/cd/isolinux/isolinux.cfg" <<'END'
default tests
label tests
  kernel vmlinuz
  append initrd=init.gz console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable clearcpuid=321,323,515,580
END
for name in "$@"; do cp "$work/tests/cpp/test_$name" "$work/cd/"; done
cp -r tests/data/model_files "$work/cd/"
xorriso -as mkisofs -quiet -R -o "$work/cd.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
  -boot-load-size 4 -boot-info-table "$work/cd" 2>/dev/null

cd "$work"
rm -f serial.txt
cat >bochsrc <<END
cpu: model=corei7_icelake_u, ips=200000000, ignore_bad_msrs=1
memory: guest=1024, host=1024
romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
log: bochs.log
panic: action=fatal
speaker: enabled=0
END
command="${BOCHS:-} -q -f bochsrc"
if [ -n "${BOCHS:-}" ]; then
  echo "display_library: nogui" >>bochsrc
else # Debian's has a debugger, which must be told to start, and fails where it finds no sound or a terminal of no size
  printf '%s\n' "display_library: term" "sound: driver=dummy" >>bochsrc
  echo c >continue
  command="stty rows 25 cols 80; bochs -rc continue -q -f bochsrc"
fi
echo "running; see $work/serial.txt" >&2
TERM=xterm timeout 3h script -qefc "$command" /dev/null </dev/null >screen.txt || true
grep -v '^\[' serial.txt
[ "$(grep -c ^passed serial.txt)" = $(($# * ${#isas[@]})) ]
