#!/usr/bin/env bash
# Starts the agent in the background after an installation, as Sindri's service framework does at every boot: the PID in
# ~/.sindri/draupnir.pid, the log in ~/.sindri/logs/draupnir.log. By then an older agent has handed over to the new
# program, or the installer has stopped it.
# Exit status: 0 the agent runs, or no console is configured; 1 the agent ended at once.
set -euo pipefail

program=$HOME/.local/bin/draupnir
pidfile=$HOME/.sindri/draupnir.pid
log=$HOME/.sindri/logs/draupnir.log

if pid=$(cat "$pidfile" 2>/dev/null) && kill -0 "$pid" 2>/dev/null; then
  echo "the agent is running already: process $pid"
  exit 0
fi
for name in SINDRI_CONSOLE_URL SINDRI_CONSOLE_API_KEY; do
  if [ -z "${!name:-}" ]; then
    echo "$name is not set: the agent is installed, and not started"
    exit 0
  fi
done

mkdir -p "$(dirname "$log")"
# Append: the agent limits the size of this file itself.
nohup "$program" >>"$log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pidfile"
sleep 1 # a configuration that cannot be used ends the agent at once
if ! kill -0 "$pid" 2>/dev/null; then
  rm -f "$pidfile"
  echo "the agent ended at once; the end of $log:" >&2
  tail -n 5 "$log" >&2
  exit 1
fi
echo "the agent is running: process $pid"
