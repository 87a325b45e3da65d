# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# A Ceph cluster of a demonstration's own on 127.0.0.1, by Debian's packages: a monitor, a manager,
# three storage daemons with a copy of everything each, and a gateway for S3. To be sourced after
# engines.sh; `camvault_install ceph-mon ceph-mgr ceph-osd radosgw ceph-common` first.

# ceph_in DIR PROGRAM [ARGUMENT…]: a program of Ceph for the cluster in DIR.
ceph_in() {
    (cd "$1" && "$2" -c "$1/ceph.conf" "${@:3}")
}

# start_ceph DIR PORT: a new cluster, with an empty bucket named `vault` at that port. The variables
# are those of a client.
start_ceph() {
    local dir=$1 id number uuid pool date signature
    id=$(cat /proc/sys/kernel/random/uuid)
    mkdir -p "$dir"/{mon,mgr,osd0,osd1,osd2}
    cat >"$dir/ceph.conf" <<END_OF_CONF
[global]
fsid = $id
mon initial members = a
mon host = [v2:127.0.0.1:$(free_port)]
public addr = 127.0.0.1
public network = 127.0.0.0/8
ms bind ipv6 = false
keyring = $dir/keyring
run dir = $dir
pid file = $dir/\$type.\$id.pid
admin socket = $dir/\$type.\$id.asok
log file = $dir/\$type.\$id.log
crash dir = $dir
setuser match path = $dir
# Three copies on one machine, two are enough to go on.
osd crush chooseleaf type = 0
osd pool default size = 3
osd pool default min size = 2
osd pool default pg num = 8
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
mon warn on insecure global id reclaim allowed = false
# One neighbour is enough to call a daemon dead, after seconds.
mon osd min down reporters = 1
mon osd adjust heartbeat grace = false
osd heartbeat interval = 2
osd heartbeat grace = 6
[mon]
mon data = $dir/mon
mgr initial modules =
[mgr]
mgr data = $dir/mgr
[osd]
osd data = $dir/osd\$id
keyring = $dir/osd\$id/keyring
osd class dir = $(dirname "$(dpkg --listfiles ceph-base ceph-osd ceph-common 2>/dev/null | grep --max-count=1 'rados-classes/.*\.so')")
osd memory target = 939524096
bluestore block size = 21474836480
[client.rgw.a]
rgw data = $dir
rgw frontends = beast endpoint=127.0.0.1:$2 tcp_nodelay=1
rgw zone = default
END_OF_CONF
    {
        ceph-authtool --create-keyring "$dir/keyring" --gen-key -n mon. --cap mon 'allow *'
        ceph-authtool "$dir/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
        ceph-authtool "$dir/keyring" --gen-key -n mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *'
        ceph-authtool "$dir/keyring" --gen-key -n client.rgw.a --cap mon 'allow rw' --cap osd 'allow rwx'
        monmaptool --create --addv a "$(sed -n 's/^mon host = //p' "$dir/ceph.conf")" --fsid "$id" "$dir/monmap"
        ceph_in "$dir" ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/keyring"
        ceph_in "$dir" ceph-mon -i a
        ceph_in "$dir" ceph-mgr -i x
        for number in 0 1 2; do
            uuid=$(cat /proc/sys/kernel/random/uuid)
            ceph_in "$dir" ceph osd new "$uuid"
            ceph-authtool --create-keyring "$dir/osd$number/keyring" --gen-key -n "osd.$number"
            ceph_in "$dir" ceph auth add "osd.$number" osd 'allow *' mon 'allow profile osd' \
                mgr 'allow profile osd' -i "$dir/osd$number/keyring"
            ceph_in "$dir" ceph-osd -i "$number" --mkfs --osd-uuid "$uuid"
            ceph_in "$dir" ceph osd crush add "osd.$number" 1.0 root=default host="host$number"
            start_osd "$dir" "$number"
        done
        # There before they are asked for: the first bucket does not wait for them.
        for pool in .rgw.root default.rgw.{log,control,meta,buckets.{index,data,non-ec}}; do
            ceph_in "$dir" ceph osd pool create "$pool" 8 8 replicated
            ceph_in "$dir" ceph osd pool application enable "$pool" rgw
        done
        ceph_in "$dir" radosgw -n client.rgw.a
    } >"$dir/start.log" 2>&1 || { tail -n5 "$dir/start.log" >&2 && die "Ceph did not start"; }
    for _ in $(seq 240); do
        curl --silent --fail --output /dev/null "http://127.0.0.1:$2/" && break
        sleep 0.5
    done
    s3_client
    ceph_in "$dir" radosgw-admin user create --uid=vault --display-name=vault \
        --access-key=demonstration --secret-key=demonstration >>"$dir/start.log" 2>&1
    date=$(LC_ALL=C date --utc '+%a, %d %b %Y %H:%M:%S GMT')
    signature=$(printf 'PUT\n\n\n%s\n/vault' "$date" | openssl dgst -sha1 -hmac demonstration -binary | base64)
    curl --silent --fail --output /dev/null --request PUT "http://127.0.0.1:$2/vault" \
        --header "date: $date" --header "authorization: AWS demonstration:$signature" ||
        die "Ceph made no bucket: $dir/start.log"
}

# start_osd DIR NUMBER: a storage daemon, new or again.
start_osd() {
    ceph_in "$1" ceph-osd -i "$2" >>"$1/start.log" 2>&1
}

# kill_osd DIR NUMBER: as when its machine loses power.
kill_osd() {
    kill -KILL "$(cat "$1/osd.$2.pid")"
}

# stop_ceph DIR: for good.
stop_ceph() {
    local file
    for file in "$1"/*.pid; do
        [ ! -s "$file" ] || kill -KILL "$(cat "$file")" 2>/dev/null || true
    done
}
