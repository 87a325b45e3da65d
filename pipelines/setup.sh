# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash
# Functions shared by the demonstrations beside it and ./tests/run.sh. To be sourced.

# What the build and the pipelines need on a bare Debian 12. Which package has what:
#   base   appsrc, playbin, parsebin, audiotestsrc      good  rtspsrc, RTP, MP4, Matroska, JPEG
#   bad    h264parse, h265parse, MPEG-TS, x265enc       ugly  x264enc
#   libav  AAC encoder, decoders                        curl  the REST calls of the examples
camvault_packages=(
    build-essential
    ca-certificates
    curl
    ffmpeg
    gstreamer1.0-libav
    gstreamer1.0-plugins-bad
    gstreamer1.0-plugins-base
    gstreamer1.0-plugins-good
    gstreamer1.0-plugins-ugly
    gstreamer1.0-plugins-base-apps
    gstreamer1.0-tools
    libgstreamer-plugins-bad1.0-dev
    libgstreamer-plugins-base1.0-dev
    libgstreamer1.0-dev
    libgstrtspserver-1.0-dev
    pkg-config
    python3
    python3-cbor2
    python3-cryptography
)

say() {
    printf '\n== %s\n' "$*"
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        # -n: there may be no terminal to ask for a password at.
        sudo -n "$@" || die "sudo asks for a password, or failed. As root, run: $*"
    else
        die "neither root nor sudo. As root, run: $*"
    fi
}

# camvault_missing PACKAGE...: those that are not installed.
camvault_missing() {
    local package status
    for package in "$@"; do
        status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || printf '%s\n' "$package"
    done
}

# camvault_install [PACKAGE...]: installs what is missing of the common packages and of these.
camvault_install() {
    command -v apt-get >/dev/null ||
        die "no apt-get here. Install what Debian calls: ${camvault_packages[*]} $*"
    local missing
    mapfile -t missing < <(camvault_missing "${camvault_packages[@]}" "$@")
    if [ "${#missing[@]}" -eq 0 ]; then
        return 0
    fi
    say "Installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update --quiet
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes \
        --no-install-recommends "${missing[@]}"
}

# Finds cargo also where rustup puts it and a login shell would have found it.
camvault_need_rust() {
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        export PATH
    fi
    command -v cargo >/dev/null || die "Rust is missing. Install it, then run this again:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
    local wanted version
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$1/Cargo.toml")
    version=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n' "$wanted" "$version" | sort --version-sort | head -n1)" != "$wanted" ]; then
        die "Rust $version is too old, $wanted is the least. Run: rustup update stable"
    fi
}

# camvault_environment TARGET PROFILE: GStreamer finds the plugin that cargo built there, and
# keeps its registry there, so that neither an installed plugin nor the user's cache plays a part.
# The plugin gets a folder of its own, because GStreamer searches all that is below one.
camvault_environment() {
    local folder=$1/$2/gstreamer
    mkdir -p "$folder"
    ln -sfn ../libgstcamvault.so "$folder/libgstcamvault.so"
    export GST_PLUGIN_PATH="$folder${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}"
    export GST_REGISTRY="$1/$2/gstreamer-registry.bin"
}

# parse_options ARGUMENT…: the options of a demonstration into `footage`, `camera`, `seconds` and
# `out`, whose defaults it has set; `usage` is its own.
parse_options() {
    while [ $# -gt 0 ]; do
        case $1 in
            --footage) footage=$(realpath "${2:?--footage needs a file}") && shift ;;
            --camera) camera=${2:?--camera needs a URL} && shift ;;
            --seconds) seconds=${2:?--seconds needs a number} && shift ;;
            --out) out=$(realpath --canonicalize-missing "${2:?--out needs a folder}") && shift ;;
            --help | -h) usage && exit 0 ;;
            *) usage >&2 && die "unknown argument: $1" ;;
        esac
        shift
    done
}

# camvault_build ROOT: what the demonstrations need, installed and built, and found by its name.
camvault_build() {
    camvault_install
    camvault_need_rust "$1"
    say "Building"
    cargo build --locked --release --bins --lib --example camera
    target=${CARGO_TARGET_DIR:-$1/target}
    camvault_environment "$target" release
    PATH=$target/release:$PATH
    pids=()
    trap end_all EXIT
}

# Ends what start_server and start_camera started.
end_all() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
}

# wait_for FILE PATTERN PID: until a line of the file matches; the process must live.
wait_for() {
    for _ in $(seq 300); do
        grep -q "$2" "$1" 2>/dev/null && return 0
        kill -0 "$3" 2>/dev/null || break
        sleep 0.1
    done
    cat "$1" >&2
    die "no \"$2\" in $1"
}

# json KEY: a member of the object on standard input.
json() {
    python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# start_server DIR NAME [ARGUMENT…]: `camvault serve` with its data in DIR/NAME; sets `url`.
start_server() {
    local log=$1/$2.log
    camvault serve --data "$1/$2" --listen 127.0.0.1:0 "${@:3}" >"$log" 2>&1 &
    pids+=($!)
    wait_for "$log" '^listening on' "$!"
    url=$(sed -n 's/^listening on //p' "$log")
}

# start_camera DIR [FOOTAGE [ARGUMENT…]]: an RTSP camera, generated or of a file; sets `camera`.
start_camera() {
    "$target/release/examples/camera" --listen 127.0.0.1:0 ${2:+--footage "$2"} "${@:3}" >"$1/camera.log" 2>&1 &
    pids+=($!)
    wait_for "$1/camera.log" '^READY' "$!"
    camera=$(sed -n '/^rtsp:/p' "$1/camera.log")
}
