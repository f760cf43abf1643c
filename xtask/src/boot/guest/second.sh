# After the power failure: no source answers, and policies are nowhere but in the
# state directory.
. /guest/common.sh
tell_open open-cold
tell order "$(systemctl show -p ActiveEnterTimestampMonotonic --value palisade network-pre.target)"
tell verify "$(palisade status --verify -o json)"
systemctl stop palisade
tell_open open-stopped
palisade detach >/dev/null
tell_open open-detached
tell left "$(ls -d /sys/fs/bpf/palisade) $(bpftool link list) $(bpftool map list) $(bpftool prog list | grep -i pal_)"
tell done
systemctl poweroff
