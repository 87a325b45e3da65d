#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${1:-}" = --help ]; then
    echo "Usage: benches/bulk.sh [MIB]
CPU seconds per GB (10^9 bytes), client and server together, of storing MIB (1024) MiB of random bytes
for the first time and again: camvault put --unit cdc (verify=deep), borg, restic. Beside them the floor
of this run: reading, SHA-256, AES-256-CTR, BLAKE3, writing and syncing, each done by openssl, b3sum's
crate and dd.  To reach: 2.0 first, 1.3 again."
    exit
fi
mib=${1:-1024}
source benches/common.sh
camvault_install restic borgbackup openssl

say "$mib MiB of random bytes"
head -c "${mib}M" /dev/urandom >"$work/file"
sync
per_gb() { calc "$1 * 1e9 / ($mib * 1048576)"; }
row() { printf '%-22s first %6s   again %6s   CPU s/GB\n' "$1" "$(per_gb "$2")" "$(per_gb "$3")"; }

background "$work/vault.log" '^listening on' camvault serve --data "$work/vault" --listen 127.0.0.1:0
vault=$(sed -n 's/^listening on //p' "$work/vault.log") vault_pid=$started
for owner in a b; do
    camvault keygen --out "$work/$owner.id" >/dev/null
    camvault enroll --vault "$vault" --identity "$work/$owner.id" >/dev/null
done
put() { # OWNER: client and server
    local before client
    before=$(cpu_of "$vault_pid")
    client=$(cpu camvault put --json --unit cdc --identity "$work/$1.id" "$work/file" "camvault://${vault#*://}/file")
    calc "$client + $(cpu_of "$vault_pid") - $before"
}
first=$(put a) again=$(put b)
cat "$work/command.log"
row camvault "$first" "$again"

export BORG_PASSPHRASE=x BORG_REPO=$work/borg BORG_BASE_DIR=$work/borg-base
borg init --encryption=repokey >/dev/null
# Without its cache of seen files, as camvault has none.
first=$(cpu borg create --files-cache disabled --compression none ::1 "$work/file")
again=$(cpu borg create --files-cache disabled --compression none ::2 "$work/file")
row borg "$first" "$again"

export RESTIC_PASSWORD=x RESTIC_REPOSITORY=$work/restic RESTIC_CACHE_DIR=$work/restic-cache
restic init >/dev/null
first=$(cpu restic backup --force --compression off "$work/file")
again=$(cpu restic backup --force --compression off "$work/file")
row restic "$first" "$again"

say "The floor of this run"
read_s=$(cpu dd if="$work/file" of=/dev/null bs=1M)
write_s=$(cpu dd if="$work/file" of="$work/copy" bs=1M conv=fsync)
cargo bench --locked --bench rce -- --quick 2>/dev/null | grep -A1 '^1 MiB/' || true
echo "reading $(per_gb "$read_s"), reading and writing with fsync $(per_gb "$write_s") CPU s/GB"
