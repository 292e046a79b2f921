#!/bin/sh
# Installs sindri-agent, the agent of the Draupnir project, from its releases.
#
#   install.sh [VERSION]     install or upgrade; without a version the latest release
#   install.sh --uninstall   remove the program and its service; configuration and state stay
#   install.sh --help        this text
#
# It needs no root, no terminal and no answer. It never installs a file whose SHA-256 is not the published one, the
# program is replaced in one step, and one that cannot print its version does not stay: the version before it does.
#
# Environment:
#   DRAUPNIR_VERSION        the version, such as 1.2.3 or v1.2.3                      (default: the latest release)
#   INSTALL_DIR             where the program goes                                    (default: ~/.local/bin)
#   DRAUPNIR_SERVICE        systemd or launchd: also install a service that runs it   (default: none)
#                           As root for the machine, else for this user. SINDRI_* variables that are set now are written
#                           to its environment file (mode 0600), unless there is one already.
#   DRAUPNIR_BASE_URL       a mirror that has releases/latest and releases/download/  (default: the project's page)
#   DRAUPNIR_API_URL        asked for releases/latest when the redirect of the page does not tell
#   DRAUPNIR_TRIES          how often a download is tried, 1 s, 2 s, 4 s … apart      (default: 4)
#   DRAUPNIR_STALL_SECONDS  how long a download may stand still                       (default: 30)
#   DRAUPNIR_ROOT           where the machine's /etc and /Library are, for root that prepares an image
#
# Exit status:
#   0 done   64 wrong usage   65 checksum wrong or missing   66 no such release   69 server out of reach or failing
#   70 the new program does not run   71 system not supported   72 a tool is missing   73 cannot write
#   129, 130, 143 interrupted
set -eu
umask 022

program=sindri-agent
label=io.github.pacphi.draupnir.sindri-agent # launchd's name for the service
home_page=https://github.com/pacphi/draupnir
work='' staged=''

say() { printf '%s\n' "$*"; }
fail() { # STATUS MESSAGE…
  status=$1
  shift
  printf 'install.sh: %s\n' "$*" >&2
  exit "$status"
}
have() { command -v "$1" >/dev/null 2>&1; }

# The comment at the head of this file, for --help; piped into a shell, there is no file.
usage() {
  if [ -r "$0" ] && head -n 2 "$0" | grep -q "Installs $program"; then
    sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p;}' "$0"
  else
    say "usage: install.sh [VERSION | --uninstall | --help]; see $home_page"
  fi
}

clean_up() {
  [ -z "$work" ] || rm -rf "$work"
  [ -z "$staged" ] || rm -f "$staged"
}

main() {
  base_url=${DRAUPNIR_BASE_URL:-$home_page}
  base_url=${base_url%/}
  api_url=${DRAUPNIR_API_URL:-}
  [ -n "$api_url" ] || [ "$base_url" != "$home_page" ] || api_url=https://api.github.com/repos/pacphi/draupnir
  version=${DRAUPNIR_VERSION:-}
  service=${DRAUPNIR_SERVICE:-}
  tries=${DRAUPNIR_TRIES:-4}
  stall_seconds=${DRAUPNIR_STALL_SECONDS:-30}
  action=install

  [ $# -le 1 ] || { usage >&2; exit 64; }
  case ${1:-} in
    '') ;;
    --uninstall) action=uninstall ;;
    --help | -h) usage; exit 0 ;;
    -*) usage >&2; exit 64 ;;
    *) version=$1 ;;
  esac
  for number in "$tries" "$stall_seconds"; do
    case $number in '' | 0 | *[!0-9]*) fail 64 "DRAUPNIR_TRIES and DRAUPNIR_STALL_SECONDS are whole numbers over 0, not '$number'" ;; esac
  done
  case $service in '' | systemd | launchd) ;; *) fail 64 "DRAUPNIR_SERVICE is systemd or launchd, not '$service'" ;; esac
  if [ -n "${INSTALL_DIR:-}" ]; then
    directory=$INSTALL_DIR
  elif [ -n "${HOME:-}" ]; then
    directory=$HOME/.local/bin
  else
    fail 64 "neither INSTALL_DIR nor HOME is set"
  fi
  case $directory in
    *'
'*) fail 64 "a line break in INSTALL_DIR" ;;
    /*) ;;
    *) directory=$PWD/$directory ;;
  esac
  target=$directory/$program
  [ ! -d "$target" ] || fail 73 "$target is a directory"

  trap clean_up EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  work=$(mktemp -d "${TMPDIR:-/tmp}/$program.XXXXXX") || fail 73 "no temporary directory in ${TMPDIR:-/tmp}"

  if [ $action = uninstall ]; then uninstall; else install; fi
}

# --- the program

install() {
  os=$(system) || exit $?
  arch=$(machine) || exit $?
  asset=$program-$os-$arch
  downloader=$(first_of curl wget) || fail 72 "curl or wget is needed"
  [ "$downloader" != wget ] || wget_kind
  hasher=$(first_of sha256sum shasum openssl) || fail 72 "sha256sum, shasum or openssl is needed: without a checksum nothing is installed"
  [ -z "$service" ] || service_tool

  if [ -z "$version" ]; then
    tag=$(latest_tag) || exit $?
  else
    tag=v${version#v}
  fi
  check_tag
  mkdir -p "$directory" 2>/dev/null || fail 73 "cannot create $directory"
  # In the same directory, so that the last step is one rename.
  staged=$(mktemp "$directory/.$program.XXXXXX" 2>/dev/null) || { staged=''; fail 73 "cannot write to $directory"; }

  download "$base_url/releases/download/$tag/$asset.sha256" "$work/checksum" "the checksum of $asset $tag"
  expected=$(published_checksum)
  [ -n "$expected" ] || fail 65 "the checksum published for $asset $tag is not one; nothing is installed"
  if [ -f "$target" ] && [ "$(sha256 "$target")" = "$expected" ]; then
    chmod 0755 "$target"
    say "$program ${tag#v} is installed already: $target"
  else
    replace
    say "$program ${tag#v} is installed: $target"
  fi
  [ -z "$service" ] || install_service
  hint_path
}

# Downloads the program, and puts it in the place of the one that is there.
replace() {
  download "$base_url/releases/download/$tag/$asset" "$staged" "$asset $tag"
  actual=$(sha256 "$staged")
  [ "$actual" = "$expected" ] ||
    fail 65 "the checksum of $asset $tag is $actual, and $expected was published; nothing is installed"
  chmod 0755 "$staged"
  prints_version "$staged" || fail 70 "$asset $tag does not print its version here ($printed); what was installed stays"
  if [ -f "$target" ]; then
    # A copy, not a rename: there is a program under this name at every moment.
    { cp -p "$target" "$target.previous.new" && mv -f "$target.previous.new" "$target.previous"; } ||
      fail 73 "cannot keep the present version as $target.previous"
  fi
  mv -f "$staged" "$target" || fail 73 "cannot write $target"
  staged=''
  prints_version "$target" && return
  if [ -f "$target.previous" ]; then
    mv -f "$target.previous" "$target"
    fail 70 "$target does not print its version ($printed); the version before it is back"
  fi
  rm -f "$target"
  fail 70 "$target does not print its version ($printed); it is removed"
}

prints_version() { # FILE; leaves in `printed` what was printed
  if have timeout; then
    printed=$(timeout 10 "$1" --version 2>&1 </dev/null) || printed="exit status $?${printed:+: $printed}"
  else
    printed=$("$1" --version 2>&1 </dev/null) || printed="exit status $?${printed:+: $printed}"
  fi
  case $printed in
    "$program ${tag#v}" | "$program ${tag#v} "*) return 0 ;;
    '') printed=nothing ;;
  esac
  return 1
}

uninstall() {
  for kind in systemd launchd; do
    service=$kind
    service_paths
    [ ! -e "$unit" ] || remove_service
  done
  if [ -e "$target" ] || [ -e "$target.previous" ]; then
    rm -f "$target" "$target.previous" || fail 73 "cannot remove $target"
    say "removed: $target"
  else
    say "not installed: $target"
  fi
}

hint_path() {
  case :${PATH:-}: in
    *":$directory:"*) ;;
    *) say "$directory is not in PATH; to have it there: export PATH=\"$directory:\$PATH\"" ;;
  esac
}

# --- what and where

system() {
  case $(uname -s) in
    Linux) say linux ;;
    Darwin) say darwin ;;
    *) fail 71 "no release for $(uname -s); there are Linux and macOS" ;;
  esac
}

machine() {
  case $(uname -m) in
    x86_64 | amd64) say amd64 ;;
    aarch64 | arm64) say arm64 ;;
    *) fail 71 "no release for $(uname -m); there are amd64 and arm64" ;;
  esac
}

first_of() {
  for tool; do
    if have "$tool"; then say "$tool"; return; fi
  done
  return 1
}

# The latest release's page says by its address which one it is, and has no limit of requests as the API does.
latest_tag() {
  tag='' why='no redirect to a release'
  # A mirror need not have the page that the redirect leads to.
  download "$base_url/releases/latest" "$work/page" "the page of the latest release" quietly || :
  tag=$(tr -d '\r' <"$work/headers" | sed -n 's|^ *[Ll]ocation: *[^ ]*/releases/tag/\([^ /?#]*\).*|\1|p' | tail -n 1)
  if [ -z "$tag" ] && [ -n "$api_url" ]; then
    if download "$api_url/releases/latest" "$work/api" "the latest release" quietly; then
      tag=$(tr ',' '\n' <"$work/api" | sed -n 's/^[{ ]*"tag_name" *: *"\([^"]*\)".*/\1/p' | head -n 1)
    fi
  fi
  [ -n "$tag" ] || fail 69 "cannot find out the latest release from $base_url/releases/latest${api_url:+ or $api_url} ($why); DRAUPNIR_VERSION names one"
  say "$tag"
}

check_tag() {
  case ${tag#v} in
    *[!0-9A-Za-z.+-]* | [!0-9]*) fail 64 "not a version: ${tag#v}" ;;
    *.*.*) ;;
    *) fail 64 "not a version: ${tag#v} (1.2.3 is one)" ;;
  esac
}

# --- downloads

# download URL FILE WHAT [quietly]: tries again what may pass by itself, and says what is final.
download() {
  delay=1 try=1
  while ! attempt "$1" "$2"; do
    case $http_status in
      404 | 410) reason="$3 does not exist ($1)" final=66 ;;
      401 | 403 | 4[0-9][0-9])
        reason="$3: the server answers $http_status ($1)" final=69
        # Too many requests, and a request that came too slowly, may be tried again.
        case $http_status in 408 | 429) final='' ;; esac
        ;;
      *) reason="$3: $why ($1)" final='' ;;
    esac
    if [ -z "$final" ] && [ "$try" -lt "$tries" ]; then
      say "$reason; once more in $delay s" >&2
      sleep "$delay"
      delay=$((delay * 2)) try=$((try + 1))
      continue
    fi
    [ "${4:-}" != quietly ] || return 1
    fail "${final:-69}" "$reason"
  done
}

# attempt URL FILE: one transfer; leaves the answer's number in `http_status` (000: none), the reason in `why`, and the
# headers of all answers in $work/headers. A page on https may not send us elsewhere by another protocol.
attempt() {
  : >"$work/headers"
  result=0
  case $downloader in
    curl)
      case $1 in https:*) protocols='=https' ;; *) protocols='=http,https' ;; esac
      http_status=$(curl -sSL --proto "$protocols" --connect-timeout 15 --speed-limit 1 --speed-time "$stall_seconds" \
        -D "$work/headers" -w '%{http_code}' -o "$2" "$1" 2>"$work/errors") || result=$?
      ;;
    wget)
      # shellcheck disable=SC2086 # $wget is a command with its options
      $wget -S -O "$2" "$1" 2>"$work/headers" || result=$?
      cp "$work/headers" "$work/errors"
      http_status=$(sed -n 's|.*HTTP/[0-9.]* \([0-9][0-9][0-9]\).*|\1|p' "$work/headers" | tail -n 1)
      ;;
  esac
  http_status=${http_status:-000}
  case $http_status in
    2[0-9][0-9]) [ $result != 0 ] || return 0 ;;
    000) ;;
    *) why="the server answers $http_status"; return 1 ;;
  esac
  why=$(tail -n 1 "$work/errors" | tr -d '\r')
  why="$downloader gave up: ${why:-status $result}"
  return 1
}

# GNU's wget would try twenty times by itself. Others are busybox's, whose own limit of time crashes it on Debian: there a
# whole download gets ten times the time that one may stand still.
wget_kind() {
  if wget --version 2>/dev/null | grep -q 'GNU Wget'; then
    wget="wget -nv --tries=1 --timeout=$stall_seconds"
    case $base_url in https:*) wget="$wget --https-only" ;; esac
  else
    wget='wget -q'
    if have timeout; then wget="timeout $((stall_seconds * 10)) $wget"; fi
  fi
}

# --- checksums

# What was published, if it is one line of 64 hexadecimal digits, alone or followed by this asset's name.
published_checksum() {
  tr -d '\r' <"$work/checksum" | awk -v name="$asset" '
    NF { lines++; digits = tolower($1); file = $2; words = NF }
    END {
      sub(/^\*/, "", file); sub(/.*\//, "", file)
      if (lines == 1 && length(digits) == 64 && digits !~ /[^0-9a-f]/ && words <= 2 && (file == "" || file == name)) print digits
    }'
}

sha256() { # FILE
  case $hasher in
    sha256sum) sha256sum <"$1" ;;
    shasum) shasum -a 256 <"$1" ;;
    openssl) openssl dgst -sha256 -r <"$1" ;;
  esac | sed 's/[^0-9a-f].*//'
}

# --- the service

service_tool() {
  case $service in
    systemd) have systemctl || fail 72 "DRAUPNIR_SERVICE=systemd: there is no systemctl here" ;;
    launchd) have launchctl || fail 72 "DRAUPNIR_SERVICE=launchd: there is no launchctl here" ;;
  esac
  service_paths
}

# Where the unit and its environment file are: the machine's for root, else the user's own.
service_paths() {
  user=$(id -u)
  configuration=${XDG_CONFIG_HOME:-${HOME:-/nonexistent}/.config}
  if [ "$user" = 0 ]; then
    systemctl='systemctl' domain=system wanted_by=multi-user.target user_line='User=root'
    unit=${DRAUPNIR_ROOT:-}/etc/systemd/system/$program.service
    plist=${DRAUPNIR_ROOT:-}/Library/LaunchDaemons/$label.plist
    environment=${DRAUPNIR_ROOT:-}/etc/$program.env
  else
    systemctl='systemctl --user' domain=gui/$user wanted_by=default.target user_line=''
    unit=$configuration/systemd/user/$program.service
    plist=${HOME:-/nonexistent}/Library/LaunchAgents/$label.plist
    environment=$configuration/$program/env
  fi
  [ "$service" != launchd ] || unit=$plist
}

install_service() {
  mkdir -p "$(dirname "$unit")" "$(dirname "$environment")" || fail 73 "cannot create the service's directories"
  write_environment
  # A number of its own for every machine, so that a fleet that fell together does not come back in step.
  random=$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')
  if [ "$service" = systemd ]; then systemd_unit; else launchd_plist; fi >"$work/unit"
  { cp "$work/unit" "$unit.new" && chmod 0644 "$unit.new" && mv -f "$unit.new" "$unit"; } || fail 73 "cannot write $unit"
  if ! grep -q '^SINDRI_CONSOLE_URL=.' "$environment" || ! grep -q '^SINDRI_CONSOLE_API_KEY=.' "$environment"; then
    say "service installed, not started: $unit"
    say "fill in $environment, then start it: $(start_command)"
    return
  fi
  if [ "$service" = systemd ]; then
    # shellcheck disable=SC2086 # $systemctl is a command with its option
    { $systemctl daemon-reload && $systemctl enable $program.service && $systemctl restart $program.service; } ||
      fail 70 "the service is installed ($unit) and did not start: $systemctl status $program"
    [ "$user" = 0 ] || say "to keep it running while you are not logged in: loginctl enable-linger"
  else
    launchctl bootout "$domain/$label" 2>/dev/null || :
    launchctl bootstrap "$domain" "$unit" || fail 70 "the service is installed ($unit) and did not start"
  fi
  say "service installed and started: $unit"
}

start_command() {
  case $service in
    systemd) say "$systemctl daemon-reload && $systemctl enable --now $program" ;;
    launchd) say "launchctl bootstrap $domain $unit" ;;
  esac
}

remove_service() {
  case $service in
    systemd)
      # shellcheck disable=SC2086 # $systemctl is a command with its option
      if have systemctl; then $systemctl disable --now $program.service || :; fi
      ;;
    launchd) if have launchctl; then launchctl bootout "$domain/$label" || :; fi ;;
  esac
  rm -f "$unit" || fail 73 "cannot remove $unit"
  # shellcheck disable=SC2086
  if [ "$service" = systemd ] && have systemctl; then $systemctl daemon-reload || :; fi
  say "removed: $unit"
  [ ! -e "$environment" ] || say "kept, since it holds your key: $environment"
}

# The variables that are set now, or a form to fill in. An existing file is the operator's: only its mode is seen to.
# systemd reads it as systemd.exec(5) says of EnvironmentFile=, where a backslash or a quote is no letter like the others;
# between double quotes it reads what a shell reads. launchd's reader below takes each line as it is.
write_environment() {
  if [ -e "$environment" ]; then
    chmod 0600 "$environment" || fail 73 "cannot protect $environment"
    return
  fi
  (
    umask 077
    {
      case $service in
        systemd) say "# Read by the service $program. One NAME=\"value\" a line, \\ before any of \\ \" \` \$ in it; $program --help lists the names." ;;
        launchd) say "# Read by the service $program. One NAME=value a line, without quotes; $program --help lists the names." ;;
      esac
      for name in SINDRI_CONSOLE_URL SINDRI_CONSOLE_API_KEY; do
        eval "value=\${$name:-}"
        [ -n "$value" ] || say "#$name="
      done
      env | grep -E '^SINDRI_(((CONSOLE|AGENT)_[A-Z_]+)|INSTANCE_ID|PROVIDER|REGION|LOG_LEVEL)=.' | as_read
    } >"$environment.new" && mv -f "$environment.new" "$environment"
  ) || fail 73 "cannot write $environment"
}

# Lines NAME=value as the service will read them.
as_read() {
  case $service in
    systemd) sed 's/[\\"`$]/\\&/g; s/=/="/; s/$/"/' ;;
    launchd) cat ;;
  esac
}

# No sandboxing: the shells that an operator opens are children of this service, and must be able to do what that user
# can, `sudo` and the home directory included. Without `User=` the system's manager would set neither HOME nor SHELL.
# One child that is killed for its memory does not end the agent; at a stop the agent is asked to drain, and what is left
# after 10 s is killed. Wrong usage and wrong configuration (64, 78) do not get better by starting again.
systemd_unit() {
  quoted() { printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/%/%%/g'; }
  cat <<UNIT
[Unit]
Description=Draupnir, the agent of this instance
Documentation=$home_page
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
$user_line
EnvironmentFile=$(printf '%s' "$environment" | sed 's/%/%%/g')
ExecStart="$(quoted "$target" | sed 's/\$/$$/g')"
WorkingDirectory=~
Restart=always
RestartSec=$((2000 + random % 8000))ms
RestartPreventExitStatus=64 78
KillMode=mixed
TimeoutStopSec=10
OOMPolicy=continue

[Install]
WantedBy=$wanted_by
UNIT
}

# launchd knows no environment file, so a shell reads it, line by line and without interpreting anything.
launchd_plist() {
  xml() { printf '%s' "$1" | sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g'; }
  # shellcheck disable=SC2016 # it is the service's shell that expands these
  script='while IFS= read -r line; do case $line in [A-Z]*=*) export "$line" ;; esac; done <"$1"; exec "$2"'
  cat <<PLIST
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>$label</string>
  <key>ProgramArguments</key>
  <array>
    <string>/bin/sh</string>
    <string>-c</string>
    <string>$(xml "$script")</string>
    <string>$program</string>
    <string>$(xml "$environment")</string>
    <string>$(xml "$target")</string>
  </array>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><true/>
  <key>ThrottleInterval</key><integer>$((5 + random % 10))</integer>
  <key>ExitTimeOut</key><integer>10</integer>
</dict>
</plist>
PLIST
}

main "$@"
