# Before systemd: what an initramfs does, drivers and the disk of the state directory.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod $module; done
# A driver finds its devices in its own time.
until [ -b /dev/vda ]; do sleep 0.1; done
mkdir -p /var/lib/palisade
mount -t ext4 /dev/vda /var/lib/palisade
exec /lib/systemd/systemd --unit=guest.target </dev/null >/dev/ttyS0 2>&1
