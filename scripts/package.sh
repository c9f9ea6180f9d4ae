#!/usr/bin/env bash
# Makes what is given to others of this build: the program without symbols, manual pages, completions, units for
# systemd, and of these a .deb. Needs cargo-deb for the last.
#
#   scripts/package.sh               all, for this machine
#   scripts/package.sh --files       no .deb
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
package=$target/package
program=$target/dist/rusty_socks

cargo build --locked --profile dist --bin rusty_socks
rm -rf "$package"
mkdir -p "$package/man" "$package/completions" "$package/systemd"
"$program" man --dir "$package/man"
gzip --best --no-name "$package"/man/*.1
for shell in bash zsh fish; do
    "$program" completions "$shell" >"$package/completions/$shell"
done
# A package has its program where the system's are.
sed 's|/usr/local/bin/|/usr/bin/|' deploy/systemd/rusty-socks.service >"$package/systemd/rusty-socks.service"
cp deploy/systemd/rusty-socks.socket "$package/systemd/"

if [[ ${1-} != --files ]]; then
    cargo deb --profile dist --no-build --output "$package/"
fi
find "$package" -maxdepth 1 -name '*.deb' -exec ls -l {} +
ls -l "$program"
