#!/bin/sh
# Installs sindri-agent, the agent of the Draupnir project, from its releases.
#
#   install.sh [VERSION]     install or upgrade; without a version the latest release
#   install.sh --uninstall   stop the agent; remove the program and its service; settings and state stay
#   install.sh --help        print this text
#
# It needs no root and no terminal, and asks nothing. It never installs a file whose SHA-256 is not the published one.
# It replaces the program in one step. If the new program cannot print its version, the previous one comes back.
#
# It also creates the link `draupnir`, the name by which Sindri starts the program; a program of that name is kept as
# `draupnir.previous`. Two agents of one instance displace each other, so it stops an agent in Go of the same user.
# After an upgrade it lets the agent whose PID is in ~/.sindri/draupnir.pid hand over to the new program, which ends no
# shell. It stops one that cannot, and any with DRAUPNIR_VERSION set, as Sindri's registry sets it: the hook of the
# registry then starts an agent whether or not one runs. Releases before 1.3.0 are the agent in Go: it installs those as
# `draupnir` alone.
#
# Environment:
#   DRAUPNIR_VERSION        the version, such as 1.3.0 or v1.3.0                      (default: the latest release)
#   INSTALL_DIR             where the program goes                                    (default: ~/.local/bin)
#   DRAUPNIR_SERVICE        systemd or launchd: also install a service that runs it   (default: none)
#                           As root for the machine, else for this user. SINDRI_*, proxy and SSL_CERT_* variables that
#                           are set now go into its environment file (mode 0600); other lines there stay as they are.
#                           A service that is installed already gets them too, and is restarted for them; for a
#                           new program alone its agent hands over.
#   DRAUPNIR_BASE_URL       a mirror that has releases/latest and releases/download/  (default: the project's page)
#   DRAUPNIR_API_URL        asked for releases/latest if the page does not redirect to a version
#   DRAUPNIR_TRIES          how often a download is tried, 1 s, 2 s, 4 s … apart      (default: 4)
#   DRAUPNIR_STALL_SECONDS  how long a download may stand still                       (default: 30)
#   DRAUPNIR_ROOT           the root directory of an image to prepare: everything goes below it, nothing is started
#
# Exit status:
#   0 done   64 wrong usage   65 checksum wrong or missing   66 no such release   69 server out of reach or failing
#   70 the new program does not run   71 system not supported   72 a tool is missing   73 cannot write
#   129, 130, 143 interrupted
set -eu
umask 022

program=sindri-agent
former=draupnir                              # the agent in Go; since 1.3.0 a link to the program
label=io.github.pacphi.draupnir.sindri-agent # launchd's name for the service
home_page=https://github.com/pacphi/draupnir
stop_seconds=10 # from SIGTERM to SIGKILL, as Sindri waits; the agent itself drains within 4 s
# The variables that the agent reads.
variables='^(SINDRI_((CONSOLE|AGENT|LLM)_[A-Z_]+|INSTANCE_ID|PROVIDER|REGION|LOG_LEVEL)|(HTTPS|HTTP|ALL|NO)_PROXY|(https|http|all|no)_proxy|SSL_CERT_(FILE|DIR))=.'
work='' staged='' changed=''

say() { printf '%s\n' "$@"; }
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

clean_up() { rm -rf ${work:+"$work"} ${staged:+"$staged"}; }

main() {
  base_url=${DRAUPNIR_BASE_URL:-$home_page}
  base_url=${base_url%/}
  api_url=${DRAUPNIR_API_URL:-}
  [ -n "$api_url" ] || [ "$base_url" != "$home_page" ] || api_url=https://api.github.com/repos/pacphi/draupnir
  version=${DRAUPNIR_VERSION:-} service=${DRAUPNIR_SERVICE:-}
  tries=${DRAUPNIR_TRIES:-4} stall_seconds=${DRAUPNIR_STALL_SECONDS:-30}
  root=${DRAUPNIR_ROOT:-}
  root=${root%/}
  pidfile=${HOME:-/nonexistent}/.sindri/draupnir.pid
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
    case $number in '' | 0 | *[!0-9]*) fail 64 "DRAUPNIR_TRIES, DRAUPNIR_STALL_SECONDS: a whole number over 0, not '$number'" ;; esac
  done
  case $service in '' | systemd | launchd) ;; *) fail 64 "DRAUPNIR_SERVICE is systemd or launchd, not '$service'" ;; esac
  directory=${INSTALL_DIR:-${HOME:+$HOME/.local/bin}}
  [ -n "$directory" ] || fail 64 "neither INSTALL_DIR nor HOME is set"
  case $directory in
    *'
'*) fail 64 "a line break in INSTALL_DIR" ;;
    /*) ;;
    *) directory=$PWD/$directory ;;
  esac
  case $root in '' | /*) ;; *) fail 64 "DRAUPNIR_ROOT is an absolute path, not '$root'" ;; esac
  case $directory in "$root"/*) ;; *) directory=$root$directory ;; esac
  link=$directory/$former
  for target in "$link" "$directory/$program"; do
    [ ! -d "$target" ] || fail 73 "$target is a directory"
  done

  trap clean_up EXIT
  trap 'exit 129' HUP && trap 'exit 130' INT && trap 'exit 143' TERM
  work=$(mktemp -d "${TMPDIR:-/tmp}/$program.XXXXXX") || fail 73 "no temporary directory in ${TMPDIR:-/tmp}"

  $action
}

# --- the program

install() {
  platform
  downloader=$(first_of curl wget) || fail 72 "curl or wget is needed"
  [ "$downloader" != wget ] || wget_kind
  hasher=$(first_of sha256sum shasum openssl) || fail 72 "sha256sum, shasum or openssl is needed to compare a checksum"
  if [ -n "$service" ] && [ -z "$root" ]; then
    service_paths
    have "$tool" || fail 72 "DRAUPNIR_SERVICE=$service: there is no $tool here"
  fi

  tag=v${version#v}
  [ -n "$version" ] || tag=$(latest_tag) || exit $?
  choose_program
  mkdir -p "$directory" 2>/dev/null || fail 73 "cannot create $directory"
  # In the same directory, so that the last step is one rename.
  staged=$(mktemp "$directory/.$program.XXXXXX" 2>/dev/null) || { staged=''; fail 73 "cannot write to $directory"; }

  download "$base_url/releases/download/$tag/$asset.sha256" "$work/checksum" "the checksum of $asset $tag"
  expected=$(published_checksum)
  [ -n "$expected" ] || fail 65 "the checksum published for $asset $tag is not one; nothing is installed"
  if [ -f "$target" ] && [ "$(sha256 "$target")" = "$expected" ]; then
    chmod 0755 "$target"
    say "$name ${tag#v} is installed already: $target"
  else
    replace
    say "$name ${tag#v} is installed: $target"
  fi
  next="set SINDRI_CONSOLE_URL and SINDRI_CONSOLE_API_KEY, then start $target"
  if [ "$name" = "$program" ]; then
    next="$next ('$target doctor' checks them)"
    link_former
  fi
  stop_former
  if [ -n "$service" ]; then install_service; else refresh_services; fi
  [ -z "$root" ] || return 0
  case :${PATH:-}: in
    *":$directory:"*) ;;
    *) say "$directory is not in PATH; to add it: export PATH=\"$directory:\$PATH\"" ;;
  esac
  say "next: $next"
}

# The program of a release, the names of its files, and its target.
choose_program() {
  name=$program
  case ${tag#v} in
    *[!0-9A-Za-z.+-]* | [!0-9]*) fail 64 "not a version: ${tag#v}" ;;
    0.*.* | 1.[0-2].*)
      name=$former
      [ -z "$service" ] || fail 64 "DRAUPNIR_SERVICE needs version 1.3.0 or later; ${tag#v} is the agent in Go"
      say "${tag#v} is the agent in Go; $program begins with 1.3.0"
      ;;
    *.*.*) ;;
    *) fail 64 "not a version: ${tag#v} (1.3.0 is one)" ;;
  esac
  target=$directory/$name
  asset=$name-$os-$arch
}

# keep FILE: as FILE.previous. A copy, not a rename: there is a program under this name at every moment.
keep() {
  { cp -p "$1" "$1.previous.new" && mv -f "$1.previous.new" "$1.previous"; } ||
    fail 73 "cannot keep the present version as $1.previous"
}

# The relative link by which Sindri starts the program.
link_former() {
  if [ -f "$link" ] && [ ! -h "$link" ]; then keep "$link"; fi
  { ln -sf "$program" "$link.new" && mv -f "$link.new" "$link"; } || fail 73 "cannot write $link"
}

# Downloads the program, and replaces the installed one.
replace() {
  download "$base_url/releases/download/$tag/$asset" "$staged" "$asset $tag"
  actual=$(sha256 "$staged")
  [ "$actual" = "$expected" ] ||
    fail 65 "the checksum of $asset $tag is $actual, and $expected was published; nothing is installed"
  chmod 0755 "$staged"
  prints_version "$staged" || fail 70 "$asset $tag does not print its version here ($printed); what was installed stays"
  [ ! -f "$target" ] || keep "$target"
  mv -f "$staged" "$target" || fail 73 "cannot write $target"
  staged=''
  if prints_version "$target"; then changed=yes; return; fi
  if [ -f "$target.previous" ]; then
    mv -f "$target.previous" "$target"
    fail 70 "$target does not print its version ($printed); the version before it is back"
  fi
  rm -f "$target"
  fail 70 "$target does not print its version ($printed); it is removed"
}

prints_version() { # FILE; leaves in `printed` what was printed
  limit=$(! have timeout || say "timeout 10")
  printed=$($limit "$1" --version 2>&1 </dev/null) || printed="exit status $?${printed:+: $printed}"
  case $printed in
    "$name ${tag#v}" | "$name ${tag#v} "*) return 0 ;;
    '') printed=nothing ;;
  esac
  return 1
}

uninstall() {
  for service in systemd launchd; do
    service_paths
    [ ! -e "$unit" ] || remove_service
  done
  name=$program
  stop_former all
  removed=''
  for file in "$link" "$link.previous" "$directory/$program" "$directory/$program.previous"; do
    [ -e "$file" ] || [ -h "$file" ] || continue
    rm -f "$file" || fail 73 "cannot remove $file"
    removed="$removed $file"
  done
  if [ -n "$removed" ]; then say "removed:$removed"; else say "not installed: $directory/$program"; fi
}

# --- agents that run

# stop_former [all]: stops an agent in Go unless it is what was installed. After an upgrade the agent that Sindri
# started hands over or is stopped: see the head of this file. It never stops the processes it runs under.
stop_former() {
  [ -z "$root" ] || return 0
  running=''
  if [ -n "$changed${1:-}" ]; then running=$(started_by_sindri); fi
  if [ -n "$changed${1:-}" ] || [ "$name" = "$program" ]; then running="$running $(agents_in_go)"; fi
  for pid in $running; do
    alive "$pid" || continue
    if [ -z "${1:-}${DRAUPNIR_VERSION:-}" ] && [ "$name" = "$program" ] && hands_over "$pid"; then
      ask_to_hand_over "$pid"
      continue
    fi
    if runs_under "$pid"; then
      say "not stopped, since it runs this script, and still the version before: process $pid"
      continue
    fi
    stop "$pid"
    next="start the agent again, as Sindri's hook does: nohup $link >>~/.sindri/logs/draupnir.log 2>&1 & echo \$! >$pidfile"
  done
  [ -n "$(started_by_sindri)" ] || rm -f "$pidfile" || fail 73 "cannot remove $pidfile"
}

# The process whose PID Sindri noted, if it is still an agent. A program that restarted itself in place is called `exe`.
started_by_sindri() {
  [ -r "$pidfile" ] || return 0
  pid=$(head -n 1 "$pidfile")
  case $pid in '' | *[!0-9]*) return 0 ;; esac
  alive "$pid" || return 0
  case $(cat "/proc/$pid/comm" 2>/dev/null) in "$former" | "$program" | exe) say "$pid" ;; esac
}

# Agents in Go that have this user and this home. /proc shows their executable, and not that of this program.
agents_in_go() {
  user=$(id -u)
  for process in /proc/[0-9]*; do
    { read -r comm <"$process/comm"; } 2>/dev/null || continue
    [ "$comm" = "$former" ] || continue
    file=$(readlink "$process/exe" 2>/dev/null | sed 's/ (deleted)$//; s|.*/||')
    [ "$file" = "$former" ] || [ "$file" = "$former.previous" ] || continue
    grep -q "^Uid:[[:space:]]*${user}[[:space:]]" "$process/status" 2>/dev/null || continue
    { tr '\0' '\n' <"$process/environ" | grep -qxF "HOME=${HOME:-}"; } 2>/dev/null || continue
    say "${process#/proc/}"
  done
}

runs_under() { # PID
  process=$$
  while [ "${process:-0}" -gt 1 ] && [ "$process" != "$1" ]; do
    process=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$process/status" 2>/dev/null)
  done
  [ "$process" = "$1" ]
}

# Whether a process is an agent of this user that hands over at SIGUSR2: it catches the signal (bit 11). The agent in Go
# and other programs would die of it, or ignore it. An agent hides its executable from all but root.
hands_over() { # PID
  file=$(readlink "/proc/$1/exe" 2>/dev/null | sed 's/ (deleted)$//; s|.*/||')
  case ${file:-$(cat "/proc/$1/comm" 2>/dev/null)} in
    "$program" | "$program.previous") ;;
    "$former" | exe) [ -z "$file" ] || return 1 ;;
    *) return 1 ;;
  esac
  grep -q "^Uid:[[:space:]]*$(id -u)[[:space:]]" "/proc/$1/status" 2>/dev/null &&
    grep -Eq '^SigCgt:[[:space:]]*[0-9a-f]*[89a-f][0-9a-f]{2}$' "/proc/$1/status" 2>/dev/null
}

ask_to_hand_over() { # PID
  kill -USR2 "$1" 2>/dev/null || return 1
  say "asked the agent that runs to hand over to the new program: process $1"
  next="see that it did: $target status"
}

# A process that only waits for its parent to notice its end is not alive.
alive() { # PID
  kill -0 "$1" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null
}

stop() { # PID
  kill "$1" 2>/dev/null || :
  waited=0
  while alive "$1" && [ $waited -lt $stop_seconds ]; do
    sleep 1
    waited=$((waited + 1))
  done
  ! alive "$1" || kill -9 "$1" 2>/dev/null || :
  say "stopped the agent that ran: process $1"
}

# --- what to install

platform() {
  case $(uname -s) in
    Linux) os=linux ;; Darwin) os=darwin ;;
    *) fail 71 "no release for $(uname -s); there are Linux and macOS" ;;
  esac
  case $(uname -m) in
    x86_64 | amd64) arch=amd64 ;; aarch64 | arm64) arch=arm64 ;;
    *) fail 71 "no release for $(uname -m); there are amd64 and arm64" ;;
  esac
}

first_of() {
  for tool; do ! have "$tool" || { say "$tool" && return; }; done
  return 1
}

# The address of the latest release's page contains its version. Unlike the API, the page has no rate limit.
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

# --- downloads and checksums

# download URL FILE WHAT [quietly]: retries temporary failures, and reports final ones.
download() {
  delay=1 try=1
  while ! attempt "$1" "$2"; do
    reason="$3: $why ($1)" final=''
    case $http_status in
      404 | 410) reason="$3 does not exist ($1)" final=66 ;;
      408 | 429) ;; # request timeout, too many requests: retry
      4[0-9][0-9]) final=69 ;;
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
  result=0
  : >"$work/headers"
  case $downloader in
    curl)
      case $1 in https:*) protocols='=https' ;; *) protocols='=http,https' ;; esac
      http_status=$(curl -q -sSL --proto "$protocols" --connect-timeout 15 --speed-limit 1 --speed-time "$stall_seconds" \
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

# Neither program may read the user's configuration, which could send a transfer elsewhere (for curl: -q, which must
# come first). GNU's wget would try twenty times by itself. Others are busybox's, whose own limit of time crashes it on
# Debian: there a whole download gets ten times the time that one may stand still.
wget_kind() {
  if wget --version 2>/dev/null | grep -q 'GNU Wget'; then
    wget="wget --no-config -nv --tries=1 --timeout=$stall_seconds"
    case $base_url in https:*) wget="$wget --https-only" ;; esac
  else
    wget='wget -q'
    if have timeout; then wget="timeout $((stall_seconds * 10)) $wget"; fi
  fi
}

# The published checksum, if it is one line of 64 hexadecimal digits, alone or followed by this asset's name.
published_checksum() {
  tr -d '\r' <"$work/checksum" | awk -v name="$asset" '
    NF { lines++; digits = tolower($1); file = $2; words = NF }
    END {
      sub(/^\*/, "", file); sub(/.*\//, "", file)
      if (lines != 1 || words > 2 || (file != "" && file != name)) exit
      if (length(digits) == 64 && digits !~ /[^0-9a-f]/) print digits
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

# shellcheck disable=SC2086 # $systemctl is a command with its option
systemd() { $systemctl "$@"; }

# Where the unit and its environment file are: the machine's for root, else the user's own. How the service is handled.
service_paths() {
  user=$(id -u)
  configuration=${XDG_CONFIG_HOME:-${HOME:-/nonexistent}/.config}
  if [ "$user" = 0 ] || [ -n "$root" ]; then
    systemctl='systemctl' domain=system wanted_by=multi-user.target user_line='User=root'
    unit=$root/etc/systemd/system/$program.service
    plist=$root/Library/LaunchDaemons/$label.plist
    environment=$root/etc/$program.env
  else
    systemctl='systemctl --user' domain=gui/$user wanted_by=default.target user_line=''
    unit=$configuration/systemd/user/$program.service
    plist=${HOME:-/nonexistent}/Library/LaunchAgents/$label.plist
    environment=$configuration/$program/env
  fi
  wants=${unit%/*}/$wanted_by.wants
  case $service in
    systemd) tool=systemctl start="$systemctl daemon-reload && $systemctl enable --now $program" status="$systemctl status $program" ;;
    launchd) unit=$plist tool=launchctl start="launchctl bootstrap $domain $unit" status="launchctl print $domain/$label" ;;
  esac
}

install_service() {
  service_paths
  mkdir -p "$(dirname "$unit")" "$(dirname "$environment")" || fail 73 "cannot create the service's directories"
  write_environment
  # A different number for every machine, so that a fleet that failed together does not restart at the same time.
  random=$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')
  if [ "$service" = systemd ]; then systemd_unit; else launchd_plist; fi >"$work/unit"
  { cp "$work/unit" "$unit.new" && chmod 0644 "$unit.new" && mv -f "$unit.new" "$unit"; } || fail 73 "cannot write $unit"
  if ! grep -q '^SINDRI_CONSOLE_URL=.' "$environment" || ! grep -q '^SINDRI_CONSOLE_API_KEY=.' "$environment"; then
    say "service installed, not started: $unit"
    next="fill in $environment, then start it: $start"
    [ -z "$root" ] || say "$next"
    return
  fi
  next="look at it: $status"
  if [ -n "$root" ]; then
    # The link that `systemctl enable` creates, without the systemd of this machine.
    [ "$service" != systemd ] || { mkdir -p "$wants" && ln -sf "../$program.service" "$wants/"; } || fail 73 "cannot enable $unit"
    say "service installed, to start with the image: $unit"
    return
  fi
  if [ "$service" = systemd ]; then
    { systemd daemon-reload && systemd enable $program.service && systemd restart $program.service; } ||
      fail 70 "the service is installed ($unit) and did not start: $status"
    [ "$user" = 0 ] || say "to keep it running while you are not logged in: loginctl enable-linger"
  else
    launchctl bootout "$domain/$label" 2>/dev/null || :
    launchctl bootstrap "$domain" "$unit" || fail 70 "the service is installed ($unit) and did not start"
  fi
  say "service installed and started: $unit"
}

# An installed service gets the settings of this run. If anything is new, a running service is restarted.
refresh_services() {
  for service in systemd launchd; do
    service_paths
    [ -e "$unit" ] || continue
    updated=$changed changed=''
    write_environment
    # Other settings need another start; a new program alone does not.
    if [ -z "$changed" ] && [ -n "$updated" ] && [ "$service" = systemd ] && [ -z "$root" ]; then
      pid=$(systemd show --property=MainPID --value $program.service 2>/dev/null) || pid=''
      if hands_over "${pid:-0}" && ask_to_hand_over "$pid"; then
        changed=$updated
        continue
      fi
    fi
    changed=$changed$updated
    if [ -z "$changed" ] || [ -n "$root" ]; then continue; fi
    next="look at it: $status"
    if case $service in
      systemd) systemd try-restart $program.service ;;
      launchd) launchctl kickstart -k "$domain/$label" ;;
    esac; then
      say "service restarted, if it ran: $unit"
    else
      say "service not restarted, it still runs as before: $unit" >&2
    fi
  done
}

remove_service() {
  [ -n "$root" ] || case $service in
    systemd) systemd disable --now $program.service || : ;;
    launchd) launchctl bootout "$domain/$label" || : ;;
  esac
  rm -f "$unit" || fail 73 "cannot remove $unit"
  if [ "$service" = systemd ]; then
    if [ -n "$root" ]; then rm -f "$wants/$program.service"; else systemd daemon-reload || :; fi
  fi
  say "removed: $unit"
  [ ! -e "$environment" ] || say "kept, since it holds your key: $environment"
}

# Puts the variables that are set now into the environment file; in an existing one the other lines stay as they are.
# systemd reads it as systemd.exec(5) says of EnvironmentFile=, where a backslash or a quote is no letter like the
# others; between double quotes it reads what a shell reads. launchd's reader below takes each line as it is.
write_environment() {
  # shellcheck disable=SC2016 # letters, no expansions
  case $service in
    systemd) as_read='s/[\\"`$]/\\&/g; s/=/="/; s/$/"/' form='NAME="value", with \ before any of \ " ` $ in it' ;;
    launchd) as_read='' form='NAME=value, without quotes' ;;
  esac
  env | grep -E "$variables" | sed "$as_read" >"$work/settings"
  if [ -e "$environment" ]; then
    cp "$environment" "$work/environment"
  else
    say "# Read by the service $program. Each line is $form; $program --help lists the names." \
      "#SINDRI_CONSOLE_URL=" "#SINDRI_CONSOLE_API_KEY=" >"$work/environment"
  fi
  (umask 077 && merged >"$environment.new") || fail 73 "cannot write $environment"
  if [ -e "$environment" ] && [ "$(cat "$environment")" = "$(cat "$environment.new")" ]; then
    { rm -f "$environment.new" && chmod 0600 "$environment"; } || fail 73 "cannot protect $environment"
    return
  fi
  mv -f "$environment.new" "$environment" || fail 73 "cannot write $environment"
  changed=yes
  names=$(sed 's/=.*//' "$work/settings" | tr '\n' ' ')
  [ -z "$names" ] || say "written to $environment: ${names% }"
}

# The environment file with each setting in the place of its former line, or of the empty one in the form, else last.
merged() {
  awk '
    { name = $0; sub(/^#/, "", name); sub(/[ \t]*=.*/, "", name); sub(/^[ \t]*/, "", name) }
    part == 1 { line[name] = $0; order[++count] = name; next }
    !(name in line) || (/^#/ && !/=$/) { print; next }
    !(name in done) { print line[name]; done[name] = 1 }
    END { for (i = 1; i <= count; i++) if (!(order[i] in done)) print line[order[i]] }
  ' part=1 "$work/settings" part=2 "$work/environment"
}

# No sandboxing: the shells that an operator opens are children of this service, and must be able to do what that user
# can, `sudo` and the home directory included. Without `User=` the system's manager would set neither HOME nor SHELL.
# The OOM kill of a child does not end the agent. At a stop the agent drains, and after 10 s systemd kills what is left.
# After a wrong command line or configuration (64, 78) a restart would not help. systemd ends an agent that hangs 20 s
# after its last sign of life.
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
Type=notify
WatchdogSec=20s
$user_line
EnvironmentFile=$(printf '%s' "${environment#"$root"}" | sed 's/%/%%/g')
ExecStart="$(quoted "${target#"$root"}" | sed 's/\$/$$/g')"
ExecReload=/bin/kill -USR2 \$MAINPID
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
  script='while IFS= read -r line; do case $line in [A-Za-z]*=*) export "$line" ;; esac; done <"$1"; exec "$2"'
  cat <<PLIST
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>$label</string>
  <key>ProgramArguments</key>
  <array>
    <string>/bin/sh</string><string>-c</string><string>$(xml "$script")</string><string>$program</string>
    <string>$(xml "${environment#"$root"}")</string>
    <string>$(xml "${target#"$root"}")</string>
  </array>
  <key>RunAtLoad</key><true/><key>KeepAlive</key><true/>
  <key>ThrottleInterval</key><integer>$((5 + random % 10))</integer>
  <key>ExitTimeOut</key><integer>10</integer>
</dict>
</plist>
PLIST
}

main "$@"
