#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail

usage() {
    cat <<'END'
Usage: deploy/backup.sh --data DIR --to DIR --stop COMMAND --start COMMAND

Copies the data directory of a server with its own stores (no PostgreSQL, no S3) to a directory
that is there already or is made: secrets/, metadata and the rest to TO/state, blobs to TO/blobs.
A second run copies new blobs alone, and takes away those that are no longer needed.

The server is down from --stop to --start only: while everything but blobs is copied. Blobs are
copied before, while it runs, and what came meanwhile after. No blob that the copied metadata names
is deleted meanwhile as long as the last step takes less than the server's --grace.

  --stop COMMAND    ends the server, and comes back when it has ended
  --start COMMAND   starts it again; also if a copy fails

Restore: cp -a TO/state/. DIR && cp -a TO/blobs DIR/blobs && camvault scrub DIR
END
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

data='' to='' stop='' start=''
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        --data | --to | --stop | --start)
            [ $# -ge 2 ] || die "$1 needs a value"
            printf -v "${1#--}" '%s' "$2"
            shift 2
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
done
[ -n "$data" ] && [ -n "$to" ] && [ -n "$stop" ] && [ -n "$start" ] || {
    usage >&2
    exit 2
}
[ -d "$data/metadata" ] || die "$data: not the data directory of a server that has the role metadata"

umask 077
mkdir -p "$to/blobs"
work=$(mktemp -d "$to/work.XXXXXX")
down=no
finish() {
    if [ "$down" = yes ]; then
        bash -c "$start" || printf 'error: the server does not start again\n' >&2
    fi
    rm -rf "$work"
}
trap finish EXIT

# names DIR: the blobs below it, as ab/NAME, in order.
names() {
    (cd "$1" && find . -mindepth 2 -type f -printf '%P\n' 2>/dev/null || true) | LC_ALL=C sort
}

# copy LIST: copies these blobs; each is there whole or not at all. One that the server has deleted
# meanwhile is none that is needed: see the check at the end.
copy() {
    rm -rf "$work/in"
    mkdir "$work/in"
    tar -C "$data/blobs" --ignore-failed-read --warning=no-failed-read -cf - -T "$1" |
        tar -C "$work/in" -xpf -
    sync -f "$work/in"
    local dir
    for dir in "$work/in"/*/; do
        [ -d "$dir" ] || continue
        mkdir -p "$to/blobs/$(basename "$dir")"
        find "$dir" -type f -exec mv -t "$to/blobs/$(basename "$dir")" {} +
    done
}

# missing LIST: those of them that the copy lacks.
missing() {
    names "$to/blobs" >"$work/copied"
    LC_ALL=C comm -23 "$1" "$work/copied"
}

names "$data/blobs" >"$work/before"
missing "$work/before" >"$work/new"
copy "$work/new"
printf 'blobs copied while the server runs: %d\n' "$(wc -l <"$work/new")"

down=yes
bash -c "$stop"
names "$data/blobs" >"$work/needed"
mkdir "$work/state"
tar -C "$data" --exclude=./blobs --exclude=./tmp -cf - . | tar -C "$work/state" -xpf -
sync -f "$work/state"
down=no
bash -c "$start"

missing "$work/needed" >"$work/new"
copy "$work/new"
printf 'blobs copied after: %d\n' "$(wc -l <"$work/new")"
missing "$work/needed" >"$work/lost"
[ ! -s "$work/lost" ] || die "$(wc -l <"$work/lost") blobs were deleted before they were copied: \
the server's --grace is too short. The backup in $to is the one before"

# Whole: it takes the place of the one before, and what only that one needed goes.
rm -rf "$to/state.before"
[ ! -e "$to/state" ] || mv "$to/state" "$to/state.before"
mv "$work/state" "$to/state"
rm -rf "$to/state.before"
names "$to/blobs" >"$work/copied"
LC_ALL=C comm -13 "$work/needed" "$work/copied" | (cd "$to/blobs" && xargs -r -d '\n' rm -f)
sync -f "$to"
printf 'backup of %d blobs in %s\n' "$(wc -l <"$work/needed")" "$to"
