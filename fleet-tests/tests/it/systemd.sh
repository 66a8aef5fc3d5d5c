#!/bin/sh
# Runs inside a booted Debian: both daemons as their units say, then what the service manager and the journal know of them.
# Each line of the answer is `name=value`.
exec >/probe/answer 2>/probe/log
set -x
trap 'systemctl halt' EXIT
export SEDGE_FLEET_DATA=/var/lib/sedge-fleet SEDGE_NODE=/run/sedged/sedged.sock

# Asks again until the answer is not empty; gives up after a minute.
until_some() {
    for _ in $(seq 300); do
        answer=$("$@")
        [ -n "$answer" ] && { echo "$answer"; return; }
        sleep 0.2
    done
    echo "no answer from: $*" >&2
    exit 1
}
of() { systemctl show "$1" -p "$2" --value; }
# The watchdog was fed since the number $2.
fed() { now=$(of "$1" WatchdogTimestampMonotonic); [ "$now" -gt "$2" ] && echo "$now"; }
# The main process is another than $2.
other() { pid=$(of "$1" MainPID); [ "$pid" != 0 ] && [ "$pid" != "$2" ] && [ "$(of "$1" ActiveState)" = active ] && echo "$pid"; }
journal() { journalctl -o cat --output-fields="$1" -u sedged FUNCTION=faulty STREAM=stdout -n 1; }

mkdir -p /etc/sedge && cp /probe/sedged.toml /etc/sedge/ && : > /etc/sedge/fleet.toml
cp /probe/units/* /etc/systemd/system/
for unit in sedged sedge-fleet; do
    mkdir -p "/run/systemd/system/$unit.service.d"
    printf '[Service]\nWatchdogSec=2\n' > "/run/systemd/system/$unit.service.d/test.conf"
done
systemctl daemon-reload
# Type=notify: these return when the daemons have said that they are ready.
systemctl start sedge-fleet && sedge claim create --toml >> /etc/sedge/sedged.toml && systemctl start sedged && echo ready=yes
sedge publish /probe/faulty.wasm --manifest /probe/faulty.toml && sedge rollout faulty --wait && echo rolled_out=yes
sedge invoke faulty --path /faulty/print-a-lot && until_some journal FUNCTION
for field in FUNCTION REVISION INVOCATION MESSAGE; do echo "$field=$(journal "$field")"; done
for unit in sedged sedge-fleet; do
    begin=$(until_some fed $unit 0); second=$(until_some fed $unit "$begin"); until_some fed $unit "$second" > /dev/null
    echo "$unit.restarts=$(of $unit NRestarts)"
done
# A daemon that hangs is ended by the watchdog and started again.
for unit in sedged sedge-fleet; do
    pid=$(of $unit MainPID); kill -STOP "$pid"; until_some other $unit "$pid" > /dev/null
    echo "$unit.restarted=$(of $unit NRestarts)"
done
systemctl stop sedged sedge-fleet
for unit in sedged sedge-fleet; do echo "$unit.stopped=$(of $unit ActiveState),$(of $unit ExecMainStatus)"; done
