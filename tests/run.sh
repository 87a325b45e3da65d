#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=../pipelines/setup.sh
source pipelines/setup.sh
# shellcheck source=../pipelines/engines.sh
source pipelines/engines.sh

usage() {
    cat <<'END'
Usage: ./tests/run.sh [--long] [--deny] [--help]

Installs what is missing (Debian packages; Rust must be there), builds and runs every check:
format, lints, build, tests, the README's claims, licences and advisories. Ends at the first
that fails.

  --long   longer fault-injection runs (sets CAMVAULT_LONG=1 for the tests)
  --deny   licences and advisories with cargo-deny, installed first where it is missing; without
           this flag licences alone are checked, and only where cargo-deny is installed
  --help   this text
END
}

deny=no
for argument in "$@"; do
    case $argument in
        --long) export CAMVAULT_LONG=1 ;;
        --deny) deny=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *)
            usage >&2
            die "unknown argument: $argument"
            ;;
    esac
done

step() {
    say "$*"
    "$@"
}

SECONDS=0
# The tests start PostgreSQL servers of their own.
camvault_install postgresql python3-venv
camvault_need_rust "$root"
target=${CARGO_TARGET_DIR:-$root/target}

# Two profiles: the plugin and the program as users get them (release), the tests in dev (whose
# dependencies are optimised too). Tests in release would save little and cost much: each test
# binary would link with LTO, 20 s of CPU instead of 1 s (measured with an almost empty library),
# their own dependencies would be built a second time all the same (150 s of CPU), and overflow
# checks would be lost. The release build takes 210 s of CPU from nothing.
# The S3 service that tests start.
camvault_moto "$target"
export CAMVAULT_MOTO=$moto

step cargo fmt --check
step cargo clippy --locked --all-targets -- -D warnings
# What is built only on request. Its own test: cargo test --features otel --test otlp.
step cargo clippy --locked --features otel --bin camvault --test otlp -- -D warnings
step cargo build --locked --release
camvault_environment "$target" release
export G_DEBUG=fatal_warnings
step cargo test --locked
unset G_DEBUG

# readme_elements: every element that the plugin registers is in the README.
readme_elements() {
    local elements element missing=()
    elements=$(gst-inspect-1.0 "$target/release/libgstcamvault.so" |
        sed -n 's/^  \([a-z0-9]*\): .*/\1/p')
    [ -n "$elements" ] || die "the plugin registers no element"
    for element in $elements; do
        grep -qF "\`$element\`" README.md || missing+=("$element")
    done
    [ "${#missing[@]}" -eq 0 ] || die "README.md does not list: ${missing[*]}"
    printf 'listed: %s\n' "$(tr '\n' ' ' <<<"$elements")"
}

readme_commands() {
    local command
    for command in ./pipelines/quickstart.sh ./pipelines/forgotten.sh ./pipelines/failover.sh ./tests/run.sh; do
        grep -qF "$command" README.md || die "README.md does not name $command"
        [ -x "$command" ] || die "$command is missing or cannot be executed"
    done
}

step readme_elements
step readme_commands

if [ "$deny" = yes ]; then
    cargo deny --version >/dev/null 2>&1 || step cargo install --locked cargo-deny
    step cargo deny check
elif cargo deny --version >/dev/null 2>&1; then
    # Advisories come from a repository on the network: only when asked for.
    step cargo deny check licenses bans sources
else
    say "cargo-deny is not installed: licences are not checked (see --deny)"
fi

say "All passed in $((SECONDS / 60)) min $((SECONDS % 60)) s"
