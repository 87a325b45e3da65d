# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# PostgreSQL servers and an S3 service of a demonstration's own, on 127.0.0.1. To be sourced after
# setup.sh; `camvault_install postgresql python3-venv` first.

# free_port: one that nobody listens on.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# camvault_moto TARGET: the S3 service moto, in an environment of Python's own; sets `moto`.
camvault_moto() {
    moto=$1/moto/bin/moto_server
    if [ ! -x "$moto" ]; then
        say "Installing moto"
        python3 -m venv --clear "$1/moto"
        "$1/moto/bin/pip" install --quiet 'moto[server]==5.2.5'
    fi
}

# The variables of a client of the S3 services here.
s3_client() {
    export AWS_ACCESS_KEY_ID=demonstration AWS_SECRET_ACCESS_KEY=demonstration AWS_REGION=us-east-1
}

# start_bucket LOG PORT: moto with an empty bucket named `vault`, whose pid is in `bucket`. What is
# in it is in memory. The variables are those of a client.
start_bucket() {
    s3_client
    "$moto" -H 127.0.0.1 -p "$2" >"$1" 2>&1 &
    bucket=$!
    pids+=("$bucket")
    wait_for "$1" 'Running on' "$bucket"
    # It asks for the form of a signature alone.
    curl --silent --fail --output /dev/null --request PUT "http://127.0.0.1:$2/vault" --header \
        'authorization: AWS4-HMAC-SHA256 Credential=demonstration/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0'
}

# postgres DIR PROGRAM [ARGUMENT…]: a program of the newest PostgreSQL that is installed, in DIR;
# never as root, which it refuses.
postgres() {
    local bin
    bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort --version-sort | tail -n1)
    if [ "$(id -u)" = 0 ]; then
        (cd "$1" && runuser -u postgres -- "$bin/$2" "${@:3}" </dev/null)
    else
        (cd "$1" && "$bin/$2" "${@:3}" </dev/null)
    fi
}

# database_dir DIR: an empty one that its server may write to.
database_dir() {
    rm -rf "$1" && mkdir -m 700 "$1"
    [ "$(id -u)" != 0 ] || chown postgres "$1"
}

# database_up DIR PORT: starts the server whose data are in DIR.
database_up() {
    postgres "$1" pg_ctl -D data -l log -w -o "-c listen_addresses=127.0.0.1 -c port=$2 \
        -c unix_socket_directories= -c max_connections=60" start >/dev/null ||
        { cat "$1/log" >&2 && die "PostgreSQL did not start"; }
}

# start_database DIR PORT: a new server with an empty database `vault` of the user `camvault`.
start_database() {
    database_dir "$1"
    postgres "$1" initdb -D data -U camvault -A trust -E UTF8 --locale=C >/dev/null
    database_up "$1" "$2"
    sql "$1" "$2" 'create database vault'
}

# start_standby DIR PORT PRIMARY_DIR PRIMARY_PORT: a copy of a server, which follows it; from now on
# that one waits for it before it says that something is committed.
start_standby() {
    database_dir "$1"
    postgres "$1" pg_basebackup -d "host=127.0.0.1 port=$4 user=camvault" -D data -R -X stream -c fast
    database_up "$1" "$2"
    sql "$3" "$4" "alter system set synchronous_standby_names = '*'"
    sql "$3" "$4" 'select pg_reload_conf()' >/dev/null
}

# promote DIR: makes a standby the one to write to. The copy that it is knows no standby of its own.
promote() {
    postgres "$1" pg_ctl -D data -w promote >/dev/null
}

# kill_database DIR: all its processes at once, as when a machine loses power.
kill_database() {
    local first
    first=$(head -n1 "$1/data/postmaster.pid")
    # shellcheck disable=SC2046
    kill -KILL "$first" $(pgrep --parent "$first")
}

# stop_database DIR: for good.
stop_database() {
    postgres "$1" pg_ctl -D data -m immediate stop >/dev/null 2>&1 || true
}

# sql DIR PORT STATEMENT: what it answers, bare.
sql() {
    local database=vault
    [[ $3 != *database* ]] || database=postgres
    postgres "$1" psql -qAtX -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$2" -U camvault -c "$3" "$database"
}
