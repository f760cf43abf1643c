# What a network manager does: it begins behind network-pre.target, and brings
# the first device up. Before that it says what stands by then.
. /guest/common.sh
tell boot-id "$(cat /proc/sys/kernel/random/boot_id)"
tell links-before "$(ip -br link)"
tell state-before "$(systemctl is-active palisade)"
tell status-before "$(palisade status -o json)"
ip netns add peer
ip link add eth0 type veth peer name eth1 netns peer
ip addr add 10.9.0.1/24 dev eth0
ip link set eth0 up
ip -n peer addr add 10.9.0.2/24 dev eth1
ip -n peer link set eth1 up
ip route add default via 10.9.0.2
for port in 8022 8023 8024 8080; do
    httpd -p 10.9.0.1:$port
done
wait_until is_protected
tell status-network "$(palisade status -o json)"
