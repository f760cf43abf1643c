# What the scripts of the guest share. They judge nothing: they do what an
# operator, a network manager or a crash does, and say what they saw.
export PATH=/bin:/usr/bin

# Busybox has one of its own, and would prefer it.
ip() {
    /bin/ip "$@"
}

# One fact: its name and its value, on one line.
tell() {
    name=$1
    shift
    echo "palisade-guest: fact $name $(echo "$*" | tr '\n' ' ')" >/dev/ttyS1
}

# What of the unit systemd knows.
unit() {
    systemctl show palisade -p "$1" --value
}

# Which ports a connection from the network gets through to.
tell_open() {
    open=""
    for port in 8022 8023 8024 8080; do
        if ip netns exec peer nc -w 1 10.9.0.1 $port </dev/null >/dev/null 2>&1; then
            open="$open $port"
        fi
    done
    tell "$1" $open
}

# Until the command succeeds, for at most a minute.
wait_until() {
    for _ in $(seq 120); do
        "$@" && return 0
        sleep 0.5
    done
    tell waited-in-vain "$@"
}

is_protected() {
    palisade status -o json | tr -d ' \n' | grep -q '"name":"eth0","protected":true'
}

answers() {
    palisade status >/dev/null 2>&1
}

# The unit runs, as another process than before.
runs_again() {
    [ "$(unit ActiveState)" = active ] && [ "$(unit MainPID)" != "$1" ] && answers
}
