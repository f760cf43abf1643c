# The first boot: an empty state directory, policies in the directory.
. /guest/common.sh
tell_open open-first
tell unit-type "$(unit Type)"
tell unit-status "$(unit StatusText)"
revision=$(palisade policy import -o json /guest/imported-1.yaml | sed -n 's/.*"revision": *\([0-9]*\).*/\1/p' | tail -n 1)
palisade policy wait "$revision" >/dev/null
tell_open open-imported

tell warnings "$(journalctl -u palisade -o cat -b | grep -E ' (WARN|ERROR) ')"

# What the unit takes away from the agent must not be what it needs.
umount -l /sys/fs/bpf
tell verify-unmounted "$(palisade status --verify -o json)"
tell bpffs-again "$(grep -c ' /sys/fs/bpf' /proc/mounts)"
tell verify "$(palisade status --verify -o json)"
tell_open open-verified

pid=$(unit MainPID)
kill -9 "$pid"
tell_open open-killed
wait_until runs_again "$pid"
tell restarts "$(unit NRestarts)"
tell status-killed "$(palisade status -o json)"
tell_open open-restarted

# Only the time is another one than in the unit.
mkdir -p /run/systemd/system/palisade.service.d
printf '[Service]\nWatchdogSec=4\n' >/run/systemd/system/palisade.service.d/sooner.conf
systemctl daemon-reload
systemctl restart palisade
tell_open open-restart
# It lives on for longer than the watchdog's time.
sleep 6
tell restarts-alive "$(unit NRestarts)"
pid=$(unit MainPID)
kill -STOP "$pid"
tell_open open-hanging
wait_until runs_again "$pid"
tell restarts-watchdog "$(unit NRestarts)"
tell log-watchdog "$(journalctl -u palisade -o cat -b | grep -i -m 1 'watchdog timeout')"
rm -r /run/systemd/system/palisade.service.d
systemctl daemon-reload

systemctl stop palisade
tell stopped "$(unit ActiveState) $(unit Result)"
tell_open open-stopped
systemctl start palisade
wait_until answers
tell_open open-started

palisade policy import /guest/imported-2.yaml >/dev/null && tell acknowledged
tell done
# The power fails.
echo b >/proc/sysrq-trigger
