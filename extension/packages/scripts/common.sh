# shellcheck shell=sh
# Functions of all maintainer scripts; .github/release-packages puts them at the head of each.
program=/usr/bin/sindri-agent
units='sindri-agent.service sindri-agent-monitor.service'

systemd_runs() { [ -d /run/systemd/system ]; }

# Whether this script runs in a terminal or a command of the agent, which a stop of the agent would end half-way. A
# process that has left its terminal has another parent, but still the service's control group.
runs_under_agent() {
  if grep -qE '[/]sindri-agent(-monitor)?\.service' /proc/self/cgroup 2>/dev/null; then return 0; fi
  pid=$$
  while [ "${pid:-0}" -gt 1 ]; do
    case $(readlink "/proc/$pid/exe" 2>/dev/null) in "$program" | "$program (deleted)") return 0 ;; esac
    pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
  done
  return 1
}

refuse_under_agent() {
  if runs_under_agent; then
    echo "sindri-agent: a terminal or command of the agent runs this removal, and stopping the agent would end it" \
      "half-way; remove the package from another session" >&2
    exit 1
  fi
}

# Whether the agent of a unit goes on in the new program: the unit says how to ask, and the agent catches SIGUSR2 (bit
# 11). One up to version 1.2 would die of it.
hands_over() { # UNIT
  [ "$(systemctl show --property=CanReload --value "$1" 2>/dev/null)" = yes ] || return 1
  pid=$(systemctl show --property=MainPID --value "$1" 2>/dev/null)
  grep -Eq '^SigCgt:[[:space:]]*[0-9a-f]*[89a-f][0-9a-f]{2}$' "/proc/${pid:-0}/status" 2>/dev/null
}

# renew_active COMMAND…: the units that run go on with the new program. No session ends where the agent hands over;
# else it is restarted: it drains within 4 s, and its sessions end.
renew_active() {
  systemd_runs || return 0
  systemctl daemon-reload || :
  for unit in $units; do
    systemctl --quiet is-active "$unit" || continue
    if hands_over "$unit"; then
      "$@" reload "$unit" || echo "sindri-agent: $unit runs the former program: systemctl status $unit" >&2
    elif runs_under_agent; then
      echo "sindri-agent: not restarted, because a terminal or command of the agent runs this upgrade;" \
        "run later: systemctl restart $unit"
    else
      "$@" restart "$unit" || echo "sindri-agent: $unit was not restarted: systemctl status $unit" >&2
    fi
  done
}

# An installation by install.sh leaves a unit in /etc, which hides that of the package.
warn_of_hidden_unit() {
  if [ -f /etc/systemd/system/sindri-agent.service ] &&
    ! grep -q "$program" /etc/systemd/system/sindri-agent.service; then
    echo "sindri-agent: /etc/systemd/system/sindri-agent.service hides the unit of this package;" \
      "install.sh --uninstall removes it"
  fi
}

say_next_step() {
  echo "sindri-agent: no service is enabled; fill in /etc/sindri-agent.env, then: $1"
}
